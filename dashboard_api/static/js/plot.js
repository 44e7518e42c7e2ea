// Charts: uPlot in the page's colours, as wide as their place, drawn anew when the colours or the width change.

const colours = () => {
  const style = getComputedStyle(document.documentElement);
  const named = (name) => style.getPropertyValue(name).trim();
  return { line: named("--plot-line"), band: named("--plot-band"), grid: named("--plot-grid"), text: named("--muted") };
};

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
export const timeOfDay = (time) => clock.format(new Date(time * 1000));

// One line of labels: the time of day; the date where the marks are days apart or a day begins.
const pad = (number) => String(number).padStart(2, "0");

function timeLabels(_plot, marks, _axis, _space, distance) {
  return marks.map((mark) => {
    const date = new Date(mark * 1000);
    const [hours, minutes] = [date.getHours(), date.getMinutes()];
    if (distance >= 86400 || (distance >= 3600 && hours === 0 && minutes === 0)) {
      return date.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
    }
    const short = `${pad(hours)}:${pad(minutes)}`;
    return distance < 60 ? `${short}:${pad(date.getSeconds())}` : short;
  });
}

// As many digits as tell one mark from the next.
function numberLabels(_plot, marks, _axis, _space, distance) {
  const maximumFractionDigits = Math.min(12, Math.max(0, Math.ceil(-Math.log10(distance)) + 1));
  return marks.map((mark) => (mark === null ? "" : mark.toLocaleString("en-US", { maximumFractionDigits })));
}

// As wide as the longest label: a meter's count has more digits than a temperature.
const LABEL_PX = 7;
const labelWidth = (_plot, labels) => Math.max(48, 12 + LABEL_PX * Math.max(0, ...(labels ?? []).map((label) => label.length)));

// A value between two gaps makes no line; it is drawn as a point.
const isAbsent = (shown) => shown === null || shown === undefined;
export const lonely = {
  show: false,
  size: 5,
  filter: (plot, at) => [...plot.data[at].keys()].filter((index) => !isAbsent(plot.data[at][index])
    && isAbsent(plot.data[at][index - 1]) && isAbsent(plot.data[at][index + 1])),
};

// place: element; series: uPlot's series after time, given the colours; onPoint(index or null): what the cursor is at.
export function makePlot(place, { series, bands = () => [], scales = {}, onPoint = () => {} }) {
  let data = null;
  let plot = null;

  function options() {
    const colour = colours();
    const axis = { stroke: colour.text, font: `12px ${getComputedStyle(document.body).fontFamily}`, ticks: { show: false } };
    return {
      width: Math.max(120, place.clientWidth),
      height: place.clientHeight,
      padding: [10, 26, 0, 0], // half of the widest label of a time fits beside the newest one
      legend: { show: false },
      cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
      scales,
      axes: [
        { ...axis, grid: { show: false }, size: 30, gap: 9, space: 76, values: timeLabels },
        { ...axis, grid: { stroke: colour.grid, width: 1 }, size: labelWidth, space: 34, values: numberLabels },
      ],
      series: [{}, ...series(colour)],
      bands: bands(colour),
      hooks: { setCursor: [(self) => onPoint(self.cursor.idx ?? null, self.cursor.left >= 0)] },
    };
  }

  function draw() {
    if (!data || !place.clientWidth) return;
    plot?.destroy();
    place.replaceChildren();
    plot = new uPlot(options(), data, place);
  }

  new ResizeObserver(() => {
    if (plot && place.clientWidth && plot.width !== place.clientWidth) {
      plot.setSize({ width: place.clientWidth, height: place.clientHeight });
    }
  }).observe(place);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  return {
    set(next) {
      data = next;
      if (plot) plot.setData(data);
      else draw();
    },
  };
}
