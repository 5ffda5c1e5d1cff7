"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("plots").textContent);
  const page = getComputedStyle(document.documentElement);
  const coloured = value => {
    if (Array.isArray(value)) return value.map(coloured);
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v)]));
    const named = typeof value === "string" && /^@([a-z0-9]+)$/.exec(value);
    return named ? page.getPropertyValue("--" + named[1]).trim() : value;
  };
  const touched = matchMedia("(pointer: coarse)").matches;
  const buttons = name => {
    const save = (format, title) => ({
      name: title, title, icon: Plotly.Icons.camera,
      click: div => Plotly.downloadImage(div, {format, filename: name, scale: 2}),
    });
    return [[save("svg", "Save as SVG"), save("png", "Save as PNG"), "resetScale2d"]];
  };
  const draw = () => {
    for (const [name, figure] of Object.entries(figures)) {
      const div = document.getElementById("plot-" + name);
      const {data, layout} = coloured(figure);
      layout.dragmode = touched ? false : "zoom";  // a finger scrolls the page
      Plotly.react(div, data, layout, {
        displaylogo: false, responsive: true, modeBarButtons: buttons(name),
        displayModeBar: touched ? true : "hover",
      });
      div.parentElement.classList.add("drawn");
    }
  };
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
