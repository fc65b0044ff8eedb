//! Plot primitives: scales, ticks, escaped text, and a plot area that fits any width without a script.
//!
//! A plot is one `<svg>` without a view box: what is horizontal is in percent of its width, what is vertical in percent
//! of its height, and labels hang over its edges at a fixed size. Only curves need a stretched view box, nested, whose
//! strokes do not scale. What is plotted, and in which colours, others decide.

use std::fmt::Write;

/// `text` as HTML text or an attribute's value. Control characters other than line breaks and tabs are left out.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(letter),
            _ if letter.is_control() => {}
            _ => out.push(letter),
        }
    }
    out
}

/// A number in percent or pixels: two digits after the point, and no zeros that say nothing.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_string() } else { text.to_string() }
}

/// Maps values to 0 … 100 percent. Never empty, always finite.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    /// From `low` to `high`; without a usable range, 1 above `low`.
    pub(crate) fn new(low: f64, high: f64) -> Scale {
        let low = if low.is_finite() { low } else { 0.0 };
        let usable = high.is_finite() && high > low && (high - low).is_finite();
        Scale { low, high: if usable { high } else { low + 1.0 } }
    }

    /// From the least to the largest finite value, both widened to the next tick.
    pub(crate) fn around(values: impl IntoIterator<Item = f64>, ticks: usize) -> Scale {
        let finite = values.into_iter().filter(|value| value.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        if !low.is_finite() {
            return Scale::new(0.0, 1.0);
        }
        // A flat line lies in the middle of its plot.
        let (low, high) = if high - low < 1e-9 { (low - 0.5, high + 0.5) } else { (low, high) };
        let step = step(high - low, ticks);
        // What is a tick but for rounding is that tick.
        Scale::new((low / step + 1e-9).floor() * step, (high / step - 1e-9).ceil() * step)
    }

    /// Where `value` lies, in percent from the low end.
    pub(crate) fn at(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low) * 100.0
    }

    /// How wide `length` is, in percent.
    pub(crate) fn span(&self, length: f64) -> f64 {
        length / (self.high - self.low) * 100.0
    }

    /// About `count` round values within the scale.
    pub(crate) fn ticks(&self, count: usize) -> Vec<f64> {
        self.ticks_every(step(self.high - self.low, count))
    }

    /// About `count` whole numbers within the scale.
    pub(crate) fn whole_ticks(&self, count: usize) -> Vec<f64> {
        self.ticks_every(step(self.high - self.low, count).max(1.0).round())
    }

    fn ticks_every(&self, step: f64) -> Vec<f64> {
        let first = (self.low / step - 1e-9).ceil();
        let value = |i: u32| (first + f64::from(i)) * step;
        // Bounded, should rounding make a step vanish beside its values.
        (0..64).map(value).take_while(|value| *value <= self.high + step * 1e-9).collect()
    }
}

/// The step of 1, 2 or 5 times a power of ten that cuts `range` into about `count`.
fn step(range: f64, count: usize) -> f64 {
    let raw = (range / count.max(1) as f64).clamp(1e-300, 1e300);
    let power = 10f64.powf(raw.log10().floor());
    let factor = match raw / power {
        f if f < 1.5 => 1.0,
        f if f < 3.5 => 2.0,
        f if f < 7.5 => 5.0,
        _ => 10.0,
    };
    power * factor
}

/// Digits after the point that tell neighbouring `ticks` apart.
pub(crate) fn decimals(ticks: &[f64]) -> usize {
    let step = match ticks {
        [a, b, ..] => (b - a).abs(),
        _ => 1.0,
    };
    let tells = |digits: &i32| {
        let scaled = step * 10f64.powi(*digits);
        scaled >= 0.999 && (scaled - scaled.round()).abs() < 1e-6
    };
    (0..6).find(tells).unwrap_or(3) as usize
}

/// Room around a plot area for its labels, in pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Margins {
    pub(crate) left: u32,
    pub(crate) right: u32,
    pub(crate) top: u32,
    pub(crate) bottom: u32,
}

/// Which end of a text is at its place.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    fn name(self) -> &'static str {
        match self {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        }
    }
}

/// A plot area that is being drawn. Positions are percentages, from the left and from the bottom.
pub(crate) struct Plot {
    id: &'static str,
    title: String,
    description: String,
    height: u32,
    margins: Margins,
    body: String,
}

impl Plot {
    /// An empty area of `height` pixels. `id` names its elements; no two plots of a page share one.
    pub(crate) fn new(id: &'static str, height: u32, margins: Margins) -> Plot {
        Plot { id, title: String::new(), description: String::new(), height, margins, body: String::new() }
    }

    /// What it is and what it shows, for those who do not see it.
    pub(crate) fn described(mut self, title: &str, description: &str) -> Plot {
        self.title = escape(title);
        self.description = escape(description);
        self
    }

    fn push(&mut self, arguments: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.body.write_fmt(arguments);
    }

    /// A text with its baseline `place.1` percent from the bottom, moved by `dx`, `dy` pixels.
    pub(crate) fn text(&mut self, place: (f64, f64), (dx, dy): (i32, i32), anchor: Anchor, class: &str, text: &str) {
        let (x, y) = (short(place.0), short(100.0 - place.1));
        let (anchor, text) = (anchor.name(), escape(text));
        self.push(format_args!(
            r#"<text x="{x}%" y="{y}%" dx="{dx}" dy="{dy}" text-anchor="{anchor}" class="{class}">{text}</text>"#
        ));
    }

    /// A straight line across the area at a height.
    pub(crate) fn across(&mut self, up: f64, class: &str) {
        let y = short(100.0 - up);
        self.push(format_args!(r#"<line x1="0" x2="100%" y1="{y}%" y2="{y}%" class="{class}"/>"#));
    }

    /// A straight line from the bottom to `over` pixels above the top.
    pub(crate) fn upright(&mut self, x: f64, over: u32, class: &str) {
        let x = short(x);
        self.push(format_args!(r#"<line x1="{x}%" x2="{x}%" y1="-{over}" y2="100%" class="{class}"/>"#));
    }

    /// A filled rectangle.
    pub(crate) fn rect(&mut self, (left, width): (f64, f64), (up, height): (f64, f64), class: &str) {
        let (x, y, width, height) = (short(left), short(100.0 - up - height), short(width), short(height));
        self.push(format_args!(r#"<rect x="{x}%" y="{y}%" width="{width}%" height="{height}%" class="{class}"/>"#));
    }

    /// A dot of `radius` pixels.
    pub(crate) fn dot(&mut self, (x, up): (f64, f64), radius: f64, class: &str) {
        let (x, y) = (short(x), short(100.0 - up));
        self.push(format_args!(r#"<circle cx="{x}%" cy="{y}%" r="{radius}" class="{class}"/>"#));
    }

    /// Small strokes at `x` percent, `above` pixels over the top; `path` is in pixels around that point.
    pub(crate) fn mark_above(&mut self, x: f64, above: u32, path: &str, class: &str) {
        let x = short(x);
        self.push(format_args!(
            r#"<svg x="{x}%" y="-{above}" width="1" height="1" overflow="visible"><path d="{path}" class="{class}"/></svg>"#
        ));
    }

    /// Small strokes around a point of the area; `path` is in pixels.
    pub(crate) fn mark(&mut self, (x, up): (f64, f64), path: &str, class: &str) {
        let (x, y) = (short(x), short(100.0 - up));
        self.push(format_args!(
            r#"<svg x="{x}%" y="{y}%" width="1" height="1" overflow="visible"><path d="{path}" class="{class}"/></svg>"#
        ));
    }

    /// A curve through `points`; it breaks where one is not finite, and a lone point is a dot.
    pub(crate) fn curve(&mut self, points: &[(f64, f64)], class: &str) {
        let mut path = String::new();
        for run in points.split(|(x, y)| !x.is_finite() || !y.is_finite()) {
            if let [alone] = run {
                self.dot(*alone, 1.5, class);
                continue;
            }
            for (i, (x, up)) in run.iter().enumerate() {
                let _ = write!(path, "{}{} {}", if i == 0 { "M" } else { "L" }, short(*x), short(100.0 - up));
            }
        }
        self.stretched(&path, class);
    }

    /// A path in percent of the area (y from the top), stretched with it; its strokes keep their width.
    pub(crate) fn stretched(&mut self, path: &str, class: &str) {
        if !path.is_empty() {
            self.push(format_args!(
                r#"<svg width="100%" height="100%" viewBox="0 0 100 100" preserveAspectRatio="none" overflow="visible"><path d="{path}" class="{class}"/></svg>"#
            ));
        }
    }

    /// An upright strip that says `tip` under the pointer and shows `dot` meanwhile.
    pub(crate) fn strip(&mut self, (left, width): (f64, f64), dot: Option<(f64, f64)>, tip: &str) {
        let (right, left) = ((left + width).min(100.0), left.max(0.0));
        let (x, width, tip) = (short(left), short((right - left).max(0.0)), escape(tip));
        self.push(format_args!(
            r#"<g class="hit"><title>{tip}</title><rect x="{x}%" y="0" width="{width}%" height="100%"/>"#
        ));
        if let Some(place) = dot.filter(|(x, up)| x.is_finite() && up.is_finite()) {
            self.dot(place, 4.0, "spot");
        }
        self.push(format_args!("</g>"));
    }

    /// A row that says `tip` under the pointer.
    pub(crate) fn row(&mut self, (up, height): (f64, f64), tip: &str) {
        let (y, height, tip) = (short(100.0 - up - height), short(height), escape(tip));
        self.push(format_args!(
            r#"<g class="hit"><title>{tip}</title><rect x="0" y="{y}%" width="100%" height="{height}%"/></g>"#
        ));
    }

    /// Lines and labels of an upright axis.
    pub(crate) fn y_axis(&mut self, scale: Scale, ticks: &[f64], label: impl Fn(f64) -> String) {
        for tick in ticks {
            let up = scale.at(*tick);
            self.across(up, "grid");
            self.text((0.0, up), (-8, 4), Anchor::End, "tick", &label(*tick));
        }
    }

    /// Labels of a level axis of whole numbers, `shift` to the right of their values, with its name below. Narrow screens
    /// show every other one.
    pub(crate) fn x_axis(&mut self, scale: Scale, shift: f64, name: &str) {
        for (i, tick) in scale.whole_ticks(10).into_iter().enumerate() {
            let x = scale.at(tick + shift);
            if x <= 100.0 {
                let class = if i % 2 == 0 { "tick" } else { "tick wide-only" };
                self.text((x, 0.0), (0, 18), Anchor::Middle, class, &format!("{tick}"));
            }
        }
        self.across(0.0, "axis");
        self.text((50.0, 0.0), (0, 37), Anchor::Middle, "axis-name", name);
    }

    /// The element.
    pub(crate) fn finish(self) -> String {
        let Plot { id, title, description, height, margins, body } = self;
        let Margins { left, right, top, bottom } = margins;
        format!(
            r#"<div class="plot" style="padding:{top}px {right}px {bottom}px {left}px"><svg width="100%" height="{height}" role="img" aria-labelledby="{id}-title" aria-describedby="{id}-desc"><title id="{id}-title">{title}</title><desc id="{id}-desc">{description}</desc>{body}</svg></div>"#
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_a_text_is_shown_and_not_obeyed() {
        assert_eq!(escape("<b a=\"'\">&\u{0}\u{1b}\n"), "&lt;b a=&quot;&#39;&quot;&gt;&amp;\n");
    }

    #[test]
    fn ticks_are_round_and_within_the_scale() {
        assert_eq!(Scale::new(0.0, 48.0).whole_ticks(10), [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 45.0]);
        assert_eq!(Scale::new(0.0, 1.0).whole_ticks(10), [0.0, 1.0]);
        assert_eq!(Scale::around([2.13, 6.24], 5).ticks(5), [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!(Scale::around([0.0, 0.6], 4).ticks(4).len(), 4);
        assert_eq!(decimals(&[0.0, 0.25]), 2);
        assert_eq!(decimals(&[0.2, 0.30000000000000004]), 1);
        assert_eq!(decimals(&[2.0, 3.0]), 0);
    }

    #[test]
    fn no_values_still_make_a_scale() {
        let odd: [&[f64]; 5] = [&[], &[f64::NAN], &[f64::INFINITY], &[3.0], &[f64::MAX, f64::MIN]];
        for values in odd {
            let scale = Scale::around(values.iter().copied(), 5);
            assert!(scale.at(3.0).is_finite(), "{values:?}");
            assert!(scale.ticks(5).len() <= 64, "{values:?}");
        }
    }

    #[test]
    fn a_curve_breaks_at_what_is_not_a_number() {
        let mut plot = Plot::new("p", 10, Margins { left: 0, right: 0, top: 0, bottom: 0 });
        plot.curve(&[(0.0, 0.0), (1.0, 50.0), (2.0, f64::NAN), (3.0, 100.0)], "c");
        assert!(plot.body.contains(r#"d="M0 100L1 50""#), "{}", plot.body);
        assert!(plot.body.contains(r#"<circle cx="3%" cy="0%""#), "{}", plot.body);
        assert!(!plot.finish().contains("NaN"));
    }
}
