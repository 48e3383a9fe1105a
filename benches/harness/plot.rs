//! Pictures: panels in rows of a page, one colour for each way in all of them, and one legend. Axes of numbers are
//! logarithmic.

use plotters::chart::MeshStyle;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// The ways that pictures show, by their names in tables, with their names and colours in pictures (Okabe and Ito's,
/// which people with each kind of colour vision tell apart).
const SHOWN: [(&str, &str, RGBColor); 6] = [
    ("memfd, mapped", "memfd + dlopen", RGBColor(0xe6, 0x9f, 0x00)),
    ("dlopen of a file", "dlopen of a file", RGBColor(0x80, 0x80, 0x80)),
    ("load", "load", RGBColor(0x00, 0x72, 0xb2)),
    ("load_buffer", "load_buffer", RGBColor(0x56, 0xb4, 0xe9)),
    ("instantiate", "instantiate", RGBColor(0x00, 0x9e, 0x73)),
    ("pool: release, acquire", "pool", RGBColor(0xcc, 0x79, 0xa7)),
];

const TEXT: RGBColor = RGBColor(0x33, 0x33, 0x33);
const GRID: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);
const FONT: &str = "sans-serif";

/// Whether pictures show this way.
pub fn is_shown(way: &str) -> bool {
    SHOWN.iter().any(|(name, ..)| *name == way)
}

/// What the numbers of a panel are of.
pub enum Across {
    /// Things with names, one in a row. The numbers go to the right.
    Names(Vec<String>),
    /// Numbers, to the right. What is measured goes up.
    Numbers { label: String, values: Vec<f64> },
}

/// Numbers of some ways, over the same things.
pub struct Panel {
    pub title: String,
    /// What is measured, with its unit.
    pub measured: String,
    pub across: Across,
    /// Of each way, by its name in tables, a number for each thing.
    pub ways: Vec<(String, Vec<Option<f64>>)>,
}

/// The panels as one SVG, so many in a row.
pub fn page(panels: &[Panel], columns: usize) -> String {
    const PANEL: (u32, u32) = (470, 330);
    const LEGEND: u32 = 34;
    let columns = columns.min(panels.len()).max(1);
    let rows = panels.len().div_ceil(columns);
    let size = (PANEL.0 * columns as u32, PANEL.1 * rows as u32 + LEGEND);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE).unwrap();
        let (top, bottom) = root.split_vertically(size.1 - LEGEND);
        for (panel, area) in panels.iter().zip(top.split_evenly((rows, columns))) {
            draw(panel, &area).unwrap();
        }
        legend(panels, &bottom).unwrap();
        root.present().unwrap();
    }
    svg
}

fn text(size: f64) -> TextStyle<'static> {
    (FONT, size).into_font().color(&TEXT)
}

/// The ways that a page shows, each once.
fn legend(panels: &[Panel], area: &Area<'_>) -> Drawn {
    let is_used = |name: &str| panels.iter().flat_map(|panel| &panel.ways).any(|way| way.0 == name);
    let used: Vec<_> = SHOWN.iter().filter(|(name, ..)| is_used(name)).collect();
    let width = |label: &str| 42 + 6 * label.len() as i32;
    let all: i32 = used.iter().map(|(_, label, _)| width(label)).sum();
    let mut x = (area.dim_in_pixel().0 as i32 - all).max(0) / 2;
    for (_, label, colour) in used {
        area.draw(&Circle::new((x + 8, 14), 5, colour.filled()))?;
        let style = text(13.0).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(*label, (x + 18, 14), style))?;
        x += width(label);
    }
    Ok(())
}

/// From the numbers: where the axis begins and ends, and where it has lines.
fn axis(values: impl Iterator<Item = f64>) -> (std::ops::Range<f64>, Vec<f64>) {
    let (low, high) = values
        .filter(|value| *value > 0.0)
        .fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    let (low, high) = if low < high { (low, high) } else { (1.0, 10.0) };
    let (start, end) = (low / 1.3, high * 1.3);
    let decades = (start.log10().floor() as i32)..=(end.log10().ceil() as i32);
    let few: &[f64] = if end / start < 150.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let lines = decades.flat_map(|decade| few.iter().map(move |step| step * 10_f64.powi(decade)));
    (start..end, lines.filter(|line| (start..=end).contains(line)).collect())
}

/// 1,000 as `1k`.
fn short(value: &f64) -> String {
    match *value {
        value if value >= 1e6 => format!("{}M", value / 1e6),
        value if value >= 1e3 => format!("{}k", value / 1e3),
        value => format!("{}", (value * 1e6).round() / 1e6),
    }
}

fn draw(panel: &Panel, area: &Area<'_>) -> Drawn {
    let middle = area.dim_in_pixel().0 as i32 / 2 + 20;
    let style = text(15.0).pos(Pos::new(HPos::Center, VPos::Top));
    area.draw(&Text::new(&*panel.title, (middle, 8), style))?;
    let mut builder = ChartBuilder::on(area);
    builder.margin_top(34).margin_right(24).margin_left(10).margin_bottom(10);
    builder.x_label_area_size(44);
    let (measured, lines) = axis(panel.ways.iter().flat_map(|(_, all)| all).flatten().copied());
    let measured = measured.log_scale().with_key_points(lines);
    match &panel.across {
        Across::Names(names) => {
            let name = |row: &f64| names[*row as usize].clone();
            let rows = Rows(names.len());
            let mut chart = builder.y_label_area_size(88).build_cartesian_2d(measured, rows)?;
            mesh(chart.configure_mesh().x_desc(&*panel.measured).y_label_formatter(&name))?;
            for (at, (way, values)) in panel.ways.iter().enumerate() {
                // Those that are as fast are still to be seen.
                let aside = (at as f64 - panel.ways.len() as f64 / 2.0) * 0.1;
                let place =
                    |(row, value): (usize, &Option<f64>)| Some(((*value)?, row as f64 + aside));
                let places = values.iter().enumerate().filter_map(place);
                chart
                    .draw_series(places.map(|place| Circle::new(place, 4, colour(way).filled())))?;
            }
        }
        Across::Numbers { label, values: across } => {
            let (range, mut lines) = axis(across.iter().copied());
            if across.len() < 5 {
                lines.clone_from(across);
            }
            let range = range.log_scale().with_key_points(lines);
            let mut chart = builder.y_label_area_size(62).build_cartesian_2d(range, measured)?;
            mesh(
                chart
                    .configure_mesh()
                    .x_desc(&**label)
                    .y_desc(&*panel.measured)
                    .y_label_formatter(&short),
            )?;
            for (way, values) in &panel.ways {
                let points = across.iter().zip(values);
                let points: Vec<_> =
                    points.filter_map(|(at, value)| Some((*at, (*value)?))).collect();
                let style = colour(way).stroke_width(2);
                chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
                let dots = points.into_iter();
                chart.draw_series(dots.map(|place| Circle::new(place, 3, colour(way).filled())))?;
            }
        }
    }
    Ok(())
}

/// Rows of things, the first at the top: each at its number.
struct Rows(usize);

impl Ranged for Rows {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, row: &f64, (bottom, top): (i32, i32)) -> i32 {
        top + ((bottom - top) as f64 * (row + 0.5) / self.0 as f64) as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        (0..self.0).map(|row| row as f64).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        -0.5..self.0 as f64 - 0.5
    }
}

fn colour(way: &str) -> RGBColor {
    SHOWN.iter().find(|(name, ..)| *name == way).map_or(TEXT, |(.., colour)| *colour)
}

/// The axes, and the lines across.
fn mesh<X, Y, B: DrawingBackend>(mesh: &mut MeshStyle<'_, '_, X, Y, B>) -> Drawn
where
    B::ErrorType: 'static,
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    mesh.x_label_formatter(&short)
        .label_style(text(12.0))
        .axis_desc_style(text(13.0))
        .bold_line_style(GRID)
        .max_light_lines(0)
        .axis_style(GRID.mix(1.0))
        .draw()?;
    Ok(())
}
