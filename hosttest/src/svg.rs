//! The elements of an SVG picture.

use std::fmt::{Display, Write};

/// Where a text stands, seen from its place.
#[derive(Clone, Copy)]
pub(crate) enum Anchor {
    /// It begins there.
    Start,
    /// Its middle is there.
    Middle,
    /// It ends there.
    End,
}

/// A picture, white where nothing is drawn. Lengths are in pixels; attributes are those of SVG 1.1, as ` name="value"`.
pub(crate) struct Svg(String);

impl Svg {
    /// A picture of this size, without a content.
    pub(crate) fn new(width: f64, height: f64) -> Self {
        let mut svg = Self(String::new());
        svg.push(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" \
             font-size=\"12\">"
        ));
        svg.push(format_args!("<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"));
        svg
    }

    fn push(&mut self, element: impl Display) {
        // Writing into a string does not fail.
        let _ = writeln!(self.0, "{element}");
    }

    /// A text of one line, with further attributes.
    pub(crate) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, attributes: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.push(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\"{anchor}{attributes}>{text}</text>"));
    }

    pub(crate) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), attributes: &str) {
        self.push(format_args!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"{attributes}/>"));
    }

    pub(crate) fn circle(&mut self, (x, y): (f64, f64), radius: f64, fill: &str) {
        self.push(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{fill}\"/>"));
    }

    pub(crate) fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), fill: &str) {
        self.push(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\"/>"
        ));
    }

    /// Lines from point to point.
    pub(crate) fn polyline(&mut self, points: &[(f64, f64)], attributes: &str) {
        let points = Self::points(points);
        self.push(format_args!("<polyline points=\"{points}\" fill=\"none\"{attributes}/>"));
    }

    /// A surface within lines from point to point.
    pub(crate) fn polygon(&mut self, points: &[(f64, f64)], attributes: &str) {
        let points = Self::points(points);
        self.push(format_args!("<polygon points=\"{points}\"{attributes}/>"));
    }

    fn points(points: &[(f64, f64)]) -> String {
        points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ")
    }

    /// The text of the file.
    pub(crate) fn finish(mut self) -> String {
        self.push("</svg>");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_no_markup() {
        let mut svg = Svg::new(10.0, 10.0);
        svg.text((1.0, 2.0), Anchor::Start, "", "a < b && c");
        assert!(svg.finish().contains(">a &lt; b &amp;&amp; c</text>"));
    }
}
