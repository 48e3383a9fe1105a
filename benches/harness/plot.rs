//! Plots, as SVG: dots for ratios, lines for growth. Both axes of lines, and the one of ratios, are
//! logarithmic.

use std::fmt::Write;

/// Of dots, which stand close together.
const COLOURS: [&str; 12] = [
    "#555555", "#999999", "#bbaa77", "#1f77b4", "#8ab8dd", "#9467bd", "#c5b0d5", "#8c564b",
    "#d62728", "#ff7f0e", "#2ca02c", "#17becf",
];

/// Of lines.
const LINES: [&str; 8] =
    ["#555555", "#1f77b4", "#d62728", "#ff7f0e", "#2ca02c", "#9467bd", "#17becf", "#8c564b"];

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    writeln!(svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#, escape(words))
        .unwrap();
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    writeln!(
        svg,
        r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{colour}"/>"#
    )
    .unwrap();
}

fn page(width: f64, height: f64, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         width=\"{width:.0}\" height=\"{height:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

/// A logarithmic axis: from values to places.
struct Axis {
    lowest: f64,
    highest: f64,
    start: f64,
    end: f64,
}

impl Axis {
    /// From the power of ten below the lowest value to the one above the highest.
    fn over(values: impl Iterator<Item = f64> + Clone, start: f64, end: f64) -> Axis {
        let values = values.filter(|value| *value > 0.0);
        let lowest = values.clone().fold(f64::INFINITY, f64::min).log10().floor();
        let highest = values.fold(0.0, f64::max).log10().ceil();
        match highest > lowest {
            true if lowest.is_finite() => Axis { lowest, highest, start, end },
            _ => {
                let lowest = if lowest.is_finite() { lowest } else { 0.0 };
                Axis { lowest, highest: lowest + 1.0, start, end }
            }
        }
    }

    fn place(&self, value: f64) -> f64 {
        let part = (value.log10() - self.lowest) / (self.highest - self.lowest);
        self.start + part * (self.end - self.start)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        (self.lowest as i32..=self.highest as i32).map(|power| 10f64.powi(power))
    }
}

/// 1000 as `1k`.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e9 => format!("{}G", value / 1e9),
        value if value >= 1e6 => format!("{}M", value / 1e6),
        value if value >= 1e3 => format!("{}k", value / 1e3),
        value => format!("{value}"),
    }
}

/// One row of dots for each of `rows`, one colour for each of `series`. `value` of row and series.
pub fn dots(
    title: &str,
    rows: &[String],
    series: &[String],
    value: impl Fn(usize, usize) -> Option<f64>,
) -> String {
    let (left, right, top, step) = (110.0, 620.0, 40.0, 24.0);
    let bottom = top + step * rows.len() as f64;
    let mut body = String::new();
    text(&mut body, left, 20.0, "start", title);
    let all: Vec<f64> = (0..rows.len())
        .flat_map(|row| (0..series.len()).map(move |one| (row, one)))
        .filter_map(|(row, one)| value(row, one))
        .collect();
    let axis = Axis::over(all.iter().copied(), left, right);
    for tick in axis.ticks() {
        let x = axis.place(tick);
        line(
            &mut body,
            (x, top - 6.0),
            (x, bottom),
            if tick == 1.0 { "#666666" } else { "#dddddd" },
        );
        text(&mut body, x, bottom + 14.0, "middle", &short(tick));
    }
    for (at, row) in rows.iter().enumerate() {
        let y = top + step * (at as f64 + 0.5);
        text(&mut body, left - 8.0, y + 4.0, "end", row);
        line(&mut body, (left, y), (right, y), "#eeeeee");
        for one in 0..series.len() {
            if let Some(value) = value(at, one).filter(|value| *value > 0.0) {
                let (x, colour) = (axis.place(value), COLOURS[one % COLOURS.len()]);
                // Those that are as fast are still to be seen.
                let y = y + (one as f64 - series.len() as f64 / 2.0) * 1.2;
                writeln!(body, r#"<circle cx="{x:.1}" cy="{y:.1}" r="4.5" fill="{colour}"/>"#)
                    .unwrap();
            }
        }
    }
    for (one, name) in series.iter().enumerate() {
        let (y, colour) = (top + 16.0 * one as f64, COLOURS[one % COLOURS.len()]);
        writeln!(body, r#"<circle cx="{}" cy="{y}" r="4.5" fill="{colour}"/>"#, right + 20.0)
            .unwrap();
        text(&mut body, right + 30.0, y + 4.0, "start", name);
    }
    page(820.0, (bottom + 30.0).max(top + 16.0 * series.len() as f64 + 10.0), &body)
}

/// A curve: what it is, and its points.
pub struct Curve {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Some curves over the same thing.
pub struct Chart {
    pub title: String,
    pub across: String,
    pub curves: Vec<Curve>,
}

/// Charts, three in a row.
pub fn lines(charts: &[Chart]) -> String {
    let (width, height) = (360.0, 330.0);
    let mut body = String::new();
    for (at, chart) in charts.iter().enumerate() {
        let (x, y) = ((at % 3) as f64 * width, (at / 3) as f64 * height);
        let points = || chart.curves.iter().flat_map(|curve| curve.points.iter().copied());
        let across = Axis::over(points().map(|point| point.0), x + 55.0, x + width - 20.0);
        let up = Axis::over(points().map(|point| point.1), y + 200.0, y + 30.0);
        text(&mut body, x + 55.0, y + 18.0, "start", &chart.title);
        for tick in across.ticks() {
            let place = across.place(tick);
            line(&mut body, (place, up.start), (place, up.end), "#dddddd");
            text(&mut body, place, up.start + 14.0, "middle", &short(tick));
        }
        for tick in up.ticks() {
            let place = up.place(tick);
            line(&mut body, (across.start, place), (across.end, place), "#dddddd");
            text(&mut body, across.start - 5.0, place + 4.0, "end", &short(tick));
        }
        text(
            &mut body,
            (across.start + across.end) / 2.0,
            up.start + 28.0,
            "middle",
            &chart.across,
        );
        for (one, curve) in chart.curves.iter().enumerate() {
            let colour = LINES[one % LINES.len()];
            let places: Vec<String> = curve
                .points
                .iter()
                .filter(|point| point.0 > 0.0 && point.1 > 0.0)
                .map(|point| format!("{:.1},{:.1}", across.place(point.0), up.place(point.1)))
                .collect();
            let places = places.join(" ");
            writeln!(
                body,
                r#"<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"/>"#
            )
            .unwrap();
            let (lx, ly) = (
                across.start + (one % 2) as f64 * 150.0,
                up.start + 46.0 + (one / 2) as f64 * 15.0,
            );
            line(&mut body, (lx, ly - 4.0), (lx + 14.0, ly - 4.0), colour);
            text(&mut body, lx + 18.0, ly, "start", &curve.name);
        }
    }
    page(width * 3.0 + 20.0, height * charts.len().div_ceil(3) as f64, &body)
}
