// node preview.mjs PROMETHEUS_URL DASHBOARD.json RUN MINUTES OUTPUT.html [END]
// Runs every query of a dashboard over MINUTES up to END (seconds since 1970; default: now) and writes a page that draws its panels with the data inside.
// A picture of it: chromium --headless --no-sandbox --window-size=1600,2850 --screenshot=FILE OUTPUT.html
import {readFileSync, writeFileSync} from 'node:fs';
import path from 'node:path';
import {build} from 'esbuild';

const [prometheus, dashboardFile, run, minutes, output, end] = process.argv.slice(2);
const stop = end ? Number(end) : Date.now() / 1000, start = stop - 60 * Number(minutes);
const step = Math.max(1, Math.round((stop - start) / 300));
const dashboard = JSON.parse(readFileSync(dashboardFile, 'utf8'));

async function ask(target) {
  const query = target.expr.replaceAll('$run', run).replaceAll('$node', '.*');
  const words = target.instant ? {query, time: stop} : {query, start, end: stop, step};
  const answer = await fetch(`${prometheus}/api/v1/query${target.instant ? '' : '_range'}?${new URLSearchParams(words)}`);
  const {status, data, error} = await answer.json();
  if (status !== 'success') throw new Error(`${query}: ${error}`);
  return data.result;
}

const results = {};
for (const panel of dashboard.panels.filter(panel => panel.type !== 'row')) {
  results[panel.id] = await Promise.all(panel.targets.map(ask));
}
const {outputFiles} = await build({
  entryPoints: [path.join(import.meta.dirname, 'panels.jsx')], bundle: true, write: false, minify: true, format: 'iife', jsx: 'automatic',
  loader: {'.ttf': 'dataurl', '.woff': 'dataurl', '.woff2': 'dataurl', '.svg': 'dataurl', '.png': 'dataurl'},
  define: {'process.env.NODE_ENV': '"production"', global: 'window'}, logLevel: 'error', outdir: 'unused',
});
const script = outputFiles.find(file => file.path.endsWith('.js')).text;
const style = outputFiles.find(file => file.path.endsWith('.css'))?.text ?? '';
const data = JSON.stringify({dashboard, results, run, start, stop, step});
writeFileSync(output, `<!DOCTYPE html><meta charset="utf-8"><style>${style}
* { scrollbar-width: none; } button { color: inherit; background: none; border: 0; padding: 0; font: inherit; }</style><body><div id="root"></div>
<script>window.preview = ${data.replaceAll('</', '<\\/')};</script><script>${script.replaceAll('</script', '<\\/script')}</script>`);
console.log(output);
