//! A layered drawing of a graph as SVG: columns by the longest way from the sources, rows by where the inputs are.

use std::fmt::Write as _;

/// How a shape is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It ran.
    Ran,
    /// It was known.
    Cached,
    /// Nobody looked at it.
    Unneeded,
    /// It failed.
    Failed,
}

impl Mark {
    /// The colour it has.
    pub(crate) fn colour(self) -> &'static str {
        match self {
            Self::Ran => "#ffd8a8",
            Self::Cached => "#c3e6cb",
            Self::Unneeded => "#eceff1",
            Self::Failed => "#f5b7b1",
        }
    }
}

/// Something to draw.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shape {
    /// What it is called.
    pub(crate) text: String,
    /// A smaller line below.
    pub(crate) remark: String,
    /// How it is filled.
    pub(crate) mark: Mark,
    /// Whether it is drawn as something that comes from outside.
    pub(crate) is_source: bool,
    /// How long it took, for the longest way through the graph.
    pub(crate) seconds: f64,
    /// Shapes before it in the list that lead to it.
    pub(crate) inputs: Vec<usize>,
}

const WIDTH: f64 = 250.0;
const HEIGHT: f64 = 44.0;
const GAP_X: f64 = 70.0;
const GAP_Y: f64 = 18.0;
const MARGIN: f64 = 20.0;
const TITLE: f64 = 30.0;
/// Characters of a line that fit.
const FITS: usize = 40;
/// Rounds of putting rows in order.
const ROUNDS: usize = 4;

/// Draws shapes, each listed after its inputs.
pub(crate) fn draw(title: &str, shapes: &[Shape]) -> String {
    let layout = Layout::new(shapes);
    let places = layout.places();
    let longest = longest_way(shapes);
    let right = layout.columns.iter().max().map_or(0, |last| last + 1) as f64;
    let rows = places.iter().map(|place| place.1 + HEIGHT).fold(0.0, f64::max);
    let (width, height) = (
        2.0 * MARGIN + right * (WIDTH + GAP_X),
        TITLE + rows.max(HEIGHT) + 2.0 * MARGIN,
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\">\n<title>{0}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{MARGIN}\" y=\"{TITLE}\" font-size=\"14\">{0}</text>\n",
        escaped(title)
    );
    for (to, shape) in shapes.iter().enumerate() {
        let mut inputs = shape.inputs.clone();
        inputs.sort_unstable();
        inputs.dedup();
        for from in inputs.into_iter().filter(|from| *from < to) {
            let way: Vec<(f64, f64)> = layout.way(from, to).into_iter().map(|node| places[node]).collect();
            line(&mut svg, &way, longest.contains(&(from, to)));
        }
    }
    for (shape, place) in shapes.iter().zip(&places) {
        node(&mut svg, shape, *place);
    }
    svg.push_str("</svg>\n");
    svg
}

/// The column of each: one after the last of its inputs.
fn columns(shapes: &[Shape]) -> Vec<usize> {
    let mut columns: Vec<usize> = Vec::with_capacity(shapes.len());
    for shape in shapes {
        let after = shape.inputs.iter().filter_map(|input| columns.get(*input)).max();
        columns.push(after.map_or(0, |last| last + 1));
    }
    columns
}

/// Shapes in columns, and points between them: what is read far to the right has a track there, shared by all who read
/// it, so that no line goes through a shape.
struct Layout {
    /// Of shapes, then of points.
    columns: Vec<usize>,
    inputs: Vec<Vec<usize>>,
    /// By shape: its first point; those after it follow.
    tracks: Vec<Option<usize>>,
}

impl Layout {
    fn new(shapes: &[Shape]) -> Self {
        let mut columns = columns(shapes);
        let mut last_use: Vec<usize> = columns.clone();
        for (to, shape) in shapes.iter().enumerate() {
            for from in shape.inputs.iter().filter(|from| **from < to) {
                last_use[*from] = last_use[*from].max(columns[to]);
            }
        }
        let mut inputs: Vec<Vec<usize>> = vec![Vec::new(); shapes.len()];
        let mut tracks = vec![None; shapes.len()];
        for from in 0..shapes.len() {
            let mut before = from;
            for column in columns[from] + 1..last_use[from] {
                tracks[from] = tracks[from].or(Some(columns.len()));
                columns.push(column);
                inputs.push(vec![before]);
                before = columns.len() - 1;
            }
        }
        let mut layout = Self {
            columns,
            inputs,
            tracks,
        };
        for (to, shape) in shapes.iter().enumerate() {
            for from in shape.inputs.iter().filter(|from| **from < to) {
                let way = layout.way(*from, to);
                let before = way[way.len() - 2];
                layout.inputs[to].push(before);
            }
        }
        layout
    }

    /// From one shape over points to another.
    fn way(&self, from: usize, to: usize) -> Vec<usize> {
        let between = self.columns[to].saturating_sub(self.columns[from] + 1);
        let first = self.tracks[from].unwrap_or_default();
        std::iter::once(from)
            .chain(first..first + between)
            .chain(std::iter::once(to))
            .collect()
    }

    /// The upper left corner of each. Rows are put in order by the middle of their neighbours, from left to right and
    /// back.
    fn places(&self) -> Vec<(f64, f64)> {
        let count = self.columns.iter().max().map_or(0, |last| last + 1);
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); count];
        for (node, &column) in self.columns.iter().enumerate() {
            members[column].push(node);
        }
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); self.columns.len()];
        for (to, inputs) in self.inputs.iter().enumerate() {
            for from in inputs {
                users[*from].push(to);
            }
        }
        let mut rows = vec![0.0; self.columns.len()];
        number(&members, &mut rows);
        for round in 0..ROUNDS {
            let forward = round % 2 == 0;
            for step in 0..count {
                let column = if forward { step } else { count - 1 - step };
                let middle = |node: &usize| {
                    let neighbours = if forward { &self.inputs[*node] } else { &users[*node] };
                    match neighbours.len() {
                        0 => rows[*node],
                        count => neighbours.iter().map(|other| rows[*other]).sum::<f64>() / count as f64,
                    }
                };
                let mut ordered: Vec<(f64, usize)> = members[column].iter().map(|node| (middle(node), *node)).collect();
                ordered.sort_by(|one, other| one.0.total_cmp(&other.0));
                members[column] = ordered.into_iter().map(|(_, node)| node).collect();
                number(&members[column..=column], &mut rows);
            }
        }
        self.columns
            .iter()
            .zip(&rows)
            .map(|(column, row)| {
                let x = MARGIN + *column as f64 * (WIDTH + GAP_X);
                (x, TITLE + MARGIN + row * (HEIGHT + GAP_Y))
            })
            .collect()
    }
}

fn number(columns: &[Vec<usize>], rows: &mut [f64]) {
    for column in columns {
        for (row, shape) in column.iter().enumerate() {
            rows[*shape] = row as f64;
        }
    }
}

/// The lines on the way that took longest.
fn longest_way(shapes: &[Shape]) -> Vec<(usize, usize)> {
    let mut ends: Vec<(f64, Option<usize>)> = Vec::with_capacity(shapes.len());
    for shape in shapes {
        let before = shape
            .inputs
            .iter()
            .filter_map(|input| Some((ends.get(*input)?.0, *input)));
        let before = before.max_by(|one, other| one.0.total_cmp(&other.0));
        let (start, from) = before.map_or((0.0, None), |(time, input)| (time, Some(input)));
        ends.push((start + shape.seconds, from));
    }
    let last = (0..ends.len()).max_by(|one, other| ends[*one].0.total_cmp(&ends[*other].0));
    let mut way = Vec::new();
    let mut next = last;
    while let Some(to) = next {
        next = ends[to].1;
        way.extend(next.map(|from| (from, to)));
    }
    way
}

/// A line from the right side of the first place to the left side of the last; on the way it goes straight through.
fn line(svg: &mut String, way: &[(f64, f64)], is_longest: bool) {
    let (colour, width) = if is_longest { ("#c0392b", 2) } else { ("#90a4ae", 1) };
    let half = GAP_X / 2.0;
    let mut path = String::new();
    for (place, pair) in way.windows(2).enumerate() {
        let (x, y) = (pair[0].0 + WIDTH, pair[0].1 + HEIGHT / 2.0);
        let (end_x, end_y) = (pair[1].0, pair[1].1 + HEIGHT / 2.0);
        // Writing to a string cannot fail.
        let _ = match place {
            0 => write!(path, "M{x} {y}"),
            _ => write!(path, " H{x}"),
        };
        let _ = write!(path, " C{} {y} {} {end_y} {end_x} {end_y}", x + half, end_x - half);
    }
    let _ = writeln!(
        svg,
        "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>"
    );
}

fn node(svg: &mut String, shape: &Shape, (x, y): (f64, f64)) {
    let radius = if shape.is_source { HEIGHT / 2.0 } else { 6.0 };
    let _ = writeln!(
        svg,
        "<g><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"{radius}\" \
         fill=\"{}\" stroke=\"#607d8b\"/>",
        escaped(&shape.text),
        shape.mark.colour(),
    );
    let (middle, first, second) = (x + WIDTH / 2.0, y + 18.0, y + 34.0);
    let _ = writeln!(
        svg,
        "<text x=\"{middle}\" y=\"{first}\" font-size=\"11\" text-anchor=\"middle\">{}</text>\
         <text x=\"{middle}\" y=\"{second}\" font-size=\"9\" fill=\"#455a64\" text-anchor=\"middle\">{}</text></g>",
        escaped(&fitted(&shape.text)),
        escaped(&fitted(&shape.remark)),
    );
}

fn fitted(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= FITS {
        return line.to_owned();
    }
    let start: String = line.chars().take(FITS - 1).collect();
    format!("{start}…")
}

/// Text for XML; what XML cannot hold at all is left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(' '),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str, seconds: f64, inputs: &[usize]) -> Shape {
        Shape {
            text: text.to_owned(),
            remark: String::new(),
            mark: Mark::Ran,
            is_source: inputs.is_empty(),
            seconds,
            inputs: inputs.to_vec(),
        }
    }

    #[test]
    fn shapes_stand_right_of_their_inputs_and_apart() {
        let shapes = [
            shape("a", 1.0, &[]),
            shape("b", 2.0, &[]),
            shape("c <&>", 1.0, &[0, 1, 1]),
            shape("d", 5.0, &[0]),
            shape("e", 1.0, &[2, 3]),
            shape("f", 0.0, &[4, 1]),
        ];
        let layout = Layout::new(&shapes);
        assert_eq!(layout.columns, [0, 0, 1, 1, 2, 3, 1, 2], "two points for the long line");
        assert_eq!(layout.way(1, 5), [1, 6, 7, 5]);
        let places = layout.places();
        for (one, place) in places.iter().enumerate() {
            for other in &places[one + 1..] {
                let apart = (place.0 - other.0).abs() >= WIDTH || (place.1 - other.1).abs() >= HEIGHT;
                assert!(apart, "{place:?} {other:?}");
            }
        }
        assert_eq!(longest_way(&shapes), [(4, 5), (3, 4), (0, 3)]);
        let svg = draw("t", &shapes);
        assert!(svg.contains("c &lt;&amp;&gt;"), "{svg}");
        assert_eq!(svg.matches("<path").count(), 7);
        assert!(draw("nothing", &[]).contains("</svg>"));
    }
}
