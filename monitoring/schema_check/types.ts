// What a dashboard of ours must be: Grafana's own types, with the options of each kind of panel in place of "anything".
import type {Dashboard, DataSourceRef, Panel, RowPanel} from '@grafana/schema';
import type * as heatmap from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen.d.ts';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen.d.ts';
import type * as statetimeline from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen.d.ts';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen.d.ts';
import type * as timeseries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen.d.ts';

// JSON has the values of enumerations, not their names.
type Json<T> = T extends string ? `${T}` : T extends (infer U)[] ? Json<U>[] : T extends object ? {[K in keyof T]: Json<T[K]>} : T;
type DeepPartial<T> = T extends (infer U)[] ? U[] : T extends object ? {[K in keyof T]?: DeepPartial<T[K]>} : T;

interface Query {
  datasource?: DataSourceRef;
  expr: string;
  refId: string;
  legendFormat?: string;
  format?: 'time_series' | 'table' | 'heatmap';
  instant?: boolean;
  range?: boolean;
}

type Kind<Type extends string, Options, Custom = {}> = Omit<Panel, 'options' | 'fieldConfig' | 'type' | 'targets'> & {
  type: Type;
  targets: Query[];
  options: DeepPartial<Options>;
  fieldConfig: {
    defaults: Omit<NonNullable<Panel['fieldConfig']>['defaults'], 'custom'> & {custom?: DeepPartial<Custom>};
    overrides: NonNullable<Panel['fieldConfig']>['overrides'];
  };
};

type AnyPanel =
  | Kind<'heatmap', heatmap.Options, heatmap.FieldConfig>
  | Kind<'stat', stat.Options>
  | Kind<'state-timeline', statetimeline.Options, statetimeline.FieldConfig>
  | Kind<'table', table.Options, table.FieldConfig>
  | Kind<'timeseries', timeseries.Options, timeseries.FieldConfig>;

export type OurPanel = Json<AnyPanel | RowPanel>;
export type OurDashboard = Json<Omit<Dashboard, 'panels'>> & {panels: OurPanel[]};
