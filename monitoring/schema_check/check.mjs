// node check.mjs [FILE...]: compiles each dashboard as a literal of the types in types.ts; exit code 1 with the compiler's words.
// It reads the dashboards that are shipped, unless files are named.
import {mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync} from 'node:fs';
import path from 'node:path';
import ts from 'typescript';

const here = import.meta.dirname;
const shipped = path.join(here, '..', 'grafana', 'dashboards');
const named = process.argv.slice(2).map(file => path.resolve(file));
const files = named.length ? named : readdirSync(shipped).map(name => path.join(shipped, name));
const folder = mkdtempSync(path.join(here, 'checked-'));
try {
  const sources = files.map((file, number) => {
    const source = path.join(folder, `${path.basename(file, '.json')}-${number}.ts`);
    const dashboard = JSON.parse(readFileSync(file, 'utf8'));
    // Each panel by itself: the compiler's message then names the one that is wrong.
    const panels = dashboard.panels.map((panel, place) => `export const panel${place}: OurPanel = ${JSON.stringify(panel, null, 1)};`);
    const rest = `export const dashboard: OurDashboard = ${JSON.stringify({...dashboard, panels: []}, null, 1)};`;
    writeFileSync(source, [`import type {OurDashboard, OurPanel} from '../types';`, ...panels, rest].join('\n'));
    return source;
  });
  const program = ts.createProgram(sources, {
    strict: true, noEmit: true, skipLibCheck: true, types: [],
    target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler,
  });
  const wrong = ts.getPreEmitDiagnostics(program);
  const host = {getCanonicalFileName: name => name, getCurrentDirectory: () => here, getNewLine: () => '\n'};
  process.stdout.write(ts.formatDiagnostics(wrong, host));
  console.log(`${files.length} dashboards, ${wrong.length} errors`);
  process.exitCode = wrong.length ? 1 : 0;
} finally {
  rmSync(folder, {recursive: true});
}
