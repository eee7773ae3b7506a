// Draws the figures, and changes what they all share: the axis below them, the runs that are shown, dark or light.
"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);
const places = [...document.querySelectorAll(".plot")];
const axisTitles = {step: "step", tokens: "tokens", hours: "hours since submission"};
const dark = matchMedia("(prefers-color-scheme: dark)");

function colours() {
  const style = getComputedStyle(document.documentElement);
  const of = name => style.getPropertyValue(name).trim();
  const axis = {gridcolor: of("--grid"), zerolinecolor: of("--grid"), linecolor: of("--line")};
  return {text: of("--text"), faint: of("--faint"), card: of("--card"), line: of("--line"), axis};
}

function layoutOf(figure) {
  const {text, faint, card, line, axis} = colours();
  const own = figure.layout;
  const hasAxes = figure.data.some(trace => trace.meta && trace.meta.axes);
  return {
    height: 300, margin: {l: 62, r: 14, t: 8, b: 40}, hovermode: "x", showlegend: false, uirevision: "kept",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: {color: text, size: 12},
    hoverlabel: {bgcolor: card, bordercolor: line, font: {color: text}, namelength: -1},
    modebar: {bgcolor: "rgba(0,0,0,0)", color: faint, activecolor: text, remove: ["lasso", "select", "zoomIn", "zoomOut", "autoScale"]},
    legend: {orientation: "h", x: 0, y: 1.02, yanchor: "bottom"},
    ...own,
    xaxis: {...axis, ...(hasAxes ? {title: {text: axisTitles.step}} : {}), ...own.xaxis},
    yaxis: {...axis, automargin: true, exponentformat: "power", ...own.yaxis},
  };
}

figures.forEach((figure, number) => {
  Plotly.newPlot(places[number], figure.data, layoutOf(figure), {responsive: true, displaylogo: false, displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false});
});

document.querySelectorAll("[data-axis]").forEach(button => button.addEventListener("click", () => {
  document.querySelectorAll("[data-axis]").forEach(other => other.classList.toggle("on", other === button));
  const axis = button.dataset.axis;
  figures.forEach((figure, number) => {
    const moved = figure.data.flatMap((trace, index) => trace.meta && trace.meta.axes ? [index] : []);
    if (moved.length) Plotly.update(places[number], {x: moved.map(index => figure.data[index].meta.axes[axis])},
      {"xaxis.title.text": axisTitles[axis], "xaxis.autorange": true}, moved);
  });
}));

document.querySelectorAll("[data-run]").forEach(button => button.addEventListener("click", () => {
  const isOn = button.classList.toggle("on"), run = JSON.parse(button.dataset.run);
  figures.forEach((figure, number) => {
    const own = figure.data.flatMap((trace, index) => trace.meta && trace.meta.run === run ? [index] : []);
    if (own.length) Plotly.restyle(places[number], {visible: isOn}, own);
  });
}));

dark.addEventListener("change", () => figures.forEach((figure, number) => Plotly.relayout(places[number], layoutOf(figure))));
document.body.dataset.height = document.documentElement.scrollHeight;
