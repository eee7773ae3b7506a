// The panels of a dashboard, drawn by @grafana/ui. Heatmaps and state time lines are no part of it: they are drawn as lines.
import {createRoot} from 'react-dom/client';

// Their CommonJS builds: esbuild gives the other ones whole modules for the default exports of what they import.
const {FieldColorModeId, FieldType, createDataFrame, createTheme, dateTime, getDisplayProcessor} = require('@grafana/data');
const {BigValue, Table, ThemeContext, TimeSeries} = require('@grafana/ui');

const {dashboard, results, run, start, stop, step} = window.preview;
const theme = createTheme({colors: {mode: 'dark'}});
const COLUMN = 66, ROW = 34, GAP = 8, HEADING = 30;
const timeRange = {from: dateTime(start * 1000), to: dateTime(stop * 1000), raw: {from: dateTime(start * 1000), to: dateTime(stop * 1000)}};
const LINES = {
  drawStyle: 'line', lineWidth: 1, lineInterpolation: 'linear', fillOpacity: 0, gradientMode: 'none', showPoints: 'never', pointSize: 5,
  spanNulls: true, axisPlacement: 'auto', axisLabel: '', axisColorMode: 'text', scaleDistribution: {type: 'linear'}, barAlignment: 0,
  stacking: {mode: 'none', group: 'A'}, hideFrom: {legend: false, tooltip: false, viz: false}, thresholdsStyle: {mode: 'off'},
};

const named = (template, labels) => template === '__auto'
  ? Object.entries(labels).filter(([key]) => key !== '__name__').map(([key, value]) => `${key}="${value}"`).join(', ')
  : template.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, key) => labels[key] ?? '');

function seriesFrames(panel) {
  const frames = panel.targets.flatMap((target, number) => results[panel.id][number].map(series => {
    const values = new Map(series.values.map(([time, value]) => [Math.round((time - start) / step), Number(value)]));
    const places = Array.from({length: Math.floor((stop - start) / step) + 1}, (_, place) => place);
    return createDataFrame({refId: target.refId, fields: [
      {name: 'Time', type: FieldType.time, values: places.map(place => (start + place * step) * 1000)},
      {name: named(target.legendFormat, series.metric), type: FieldType.number, values: places.map(place => values.get(place) ?? null),
       config: {...panel.fieldConfig?.defaults, custom: {...LINES, ...panel.fieldConfig?.defaults?.custom}}},
    ]});
  }));
  return frames.map((frame, number) => {
    const field = frame.fields[1];
    field.config.displayName = field.name;
    for (const {matcher, properties} of panel.fieldConfig?.overrides ?? []) {
      if (matcher.options === field.name) for (const {id, value} of properties) field.config[id] = value;
    }
    field.config.color ??= {mode: FieldColorModeId.PaletteClassic};
    field.state = {seriesIndex: number, displayName: field.name};
    for (const one of frame.fields) one.display = getDisplayProcessor({field: one, theme});
    return frame;
  });
}

function tableFrame(panel) {
  const rows = new Map();
  panel.targets.forEach((target, number) => results[panel.id][number].forEach(({metric, value}) => {
    const {__name__, ...labels} = metric, key = JSON.stringify(labels);
    const column = panel.targets.length > 1 ? `Value #${target.refId}` : 'Value';
    rows.set(key, {...labels, ...rows.get(key), [column]: Number(value[1])});
  }));
  const {renameByName: headings, excludeByName: hidden, indexByName: order} = panel.transformations.find(one => one.id === 'organize').options;
  const all = [...rows.values()];
  const columns = [...new Set([...Object.keys(headings), ...all.flatMap(Object.keys)])].filter(name => !hidden[name] && all.some(one => name in one))
    .sort((one, other) => (order[one] ?? 99) - (order[other] ?? 99));
  const units = Object.fromEntries((panel.fieldConfig?.overrides ?? []).map(({matcher, properties}) =>
    [matcher.options, properties.find(({id}) => id === 'unit')?.value]));
  const fields = columns.map(name => ({
    name: headings[name] ?? name, type: name.startsWith('Value') ? FieldType.number : FieldType.string,
    values: all.map(one => one[name] ?? null), config: {unit: units[headings[name]], custom: {align: 'left', cellOptions: {type: 'auto'}}},
  }));
  const frame = createDataFrame({fields, length: all.length});
  for (const field of frame.fields) field.display = getDisplayProcessor({field, theme});
  return frame;
}

function Value({panel, width, height}) {
  const [newest] = results[panel.id][0].map(series => Number(series.values.at(-1)[1]));
  const field = {name: '', type: FieldType.number, config: {...panel.fieldConfig.defaults, color: {mode: FieldColorModeId.Thresholds}}, values: []};
  const display = getDisplayProcessor({field, theme});
  return <BigValue value={newest === undefined ? {numeric: NaN, text: 'no data'} : display(newest)} width={width} height={height} theme={theme}
    colorMode="value" graphMode="none" justifyMode="auto" />;
}

function Content({panel, width, height}) {
  if (panel.type === 'stat') return <Value {...{panel, width, height}} />;
  if (panel.type === 'table') {
    const frame = tableFrame(panel);
    return frame.length ? <Table data={frame} width={width} height={height} /> : <p style={{color: theme.colors.text.secondary}}>none</p>;
  }
  const frames = seriesFrames(panel);
  if (!frames.length) return <p style={{color: theme.colors.text.secondary}}>no data</p>;
  const legend = {showLegend: true, displayMode: 'list', placement: 'bottom', calcs: []};
  return <TimeSeries {...{frames, width, height, timeRange, legend}} timeZone="browser">{() => null}</TimeSeries>;
}

function Panel({panel}) {
  const {x, y, w, h} = panel.gridPos;
  const box = {position: 'absolute', left: x * COLUMN + GAP, top: y * ROW + 50, width: w * COLUMN - GAP, height: h * ROW - GAP};
  if (panel.type === 'row') return <h3 style={{...box, margin: 0, color: theme.colors.text.primary, font: '500 15px Inter, sans-serif'}}>{panel.title}</h3>;
  const own = {...box, background: theme.colors.background.primary, border: `1px solid ${theme.colors.border.weak}`, borderRadius: 2};
  return <section style={own}>
    <div style={{height: HEADING, padding: '6px 10px', color: theme.colors.text.primary, font: '500 13px Inter, sans-serif'}}>{panel.title}</div>
    <div style={{padding: '0 8px'}}><Content panel={panel} width={box.width - 18} height={box.height - HEADING - 8} /></div>
  </section>;
}

document.body.style.cssText = `margin: 0; background: ${theme.colors.background.canvas}; color: ${theme.colors.text.primary}; font: 12px Inter, sans-serif`;
createRoot(document.getElementById('root')).render(
  <ThemeContext.Provider value={theme}>
    <h2 style={{margin: 0, padding: '12px 10px', font: '500 20px Inter, sans-serif'}}>{dashboard.title}: {run}</h2>
    {dashboard.panels.map(panel => <Panel key={panel.id} panel={panel} />)}
  </ThemeContext.Provider>);
