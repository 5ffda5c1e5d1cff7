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
  const saved = (name, href) =>
    Object.assign(document.createElement("a"), {download: name, href}).click();
  const cell = value => {  // text that a spreadsheet would compute stays text
    if (typeof value === "number" || value == null) return String(value ?? "");
    const safe = /^[=+\-@\t\r]/.test(value) ? "'" + value : value;
    return '"' + safe.replaceAll('"', '""') + '"';
  };
  const text = html => new DOMParser().parseFromString(html, "text/html").body.textContent;
  const table = ({data}) => {
    const rows = [["series", "x", "y", "x_low", "x_high", "y_low", "y_high"]];
    for (const {name, x, y, error_x, error_y} of data) x.forEach((at, i) => {
      const ends = (value, error) =>
        error ? [value - error.arrayminus[i], value + error.array[i]] : ["", ""];
      rows.push([text(name), at, y[i], ...ends(at, error_x), ...ends(y[i], error_y)]);
    });
    return rows.map(row => row.map(cell).join(",")).join("\r\n") + "\r\n";
  };
  const buttons = (name, div) => {
    const bar = Object.assign(document.createElement("div"), {className: "saves"});
    bar.append("Save as");
    const add = (format, click) => {
      const button = document.createElement("button");
      Object.assign(button, {type: "button", textContent: format});
      button.setAttribute("aria-label", `Save this plot as ${format}`);
      button.addEventListener("click", click);
      bar.append(button);
    };
    for (const format of ["png", "svg"]) add(format.toUpperCase(), () =>
      Plotly.downloadImage(div, {format, filename: name, scale: 2}));
    add("CSV", () => saved(name + ".csv",
      "data:text/csv;charset=utf-8," + encodeURIComponent(table(figures[name]))));
    const box = Object.assign(document.createElement("div"), {className: "boxed"});
    div.replaceWith(box);
    box.append(div, bar);
  };
  const draw = () => {
    for (const [name, figure] of Object.entries(figures)) {
      const div = document.getElementById("plot-" + name);
      const {data, layout} = coloured(figure);
      layout.dragmode = touched ? false : "zoom";  // a finger scrolls the page
      Plotly.react(div, data, layout, {
        displaylogo: false, responsive: true, modeBarButtons: [["resetScale2d"]],
        displayModeBar: touched ? true : "hover",
      });
      div.parentElement.classList.add("drawn");
    }
  };
  draw();
  for (const name of Object.keys(figures)) buttons(name, document.getElementById("plot-" + name));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
