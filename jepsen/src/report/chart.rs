//! The frame that all charts of a run share: time to the right, faults as bands behind.

use std::fmt::Write;

use crate::judge::{Band, Case, MS};

use super::html::escape;

/// The width of a chart, and the space for its scale at the left, in pixels.
const WIDTH: f64 = 1_000.0;
pub(super) const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
/// Space for the scale of time at the bottom, and for one lane of faults at the top.
const BOTTOM: f64 = 22.0;
const LANE: f64 = 6.0;
/// Lanes of faults at the top; more classes share the last one.
const LANES: usize = 12;
/// Colours of the style sheet.
const COLOURS: usize = 6;

/// The value axis of one chart.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scale {
    Linear { to: f64 },
    Log { from: f64, to: f64 },
}

/// Where things lie.
pub(super) struct Canvas {
    end: u64,
    bands: Vec<(Band, usize)>,
    lanes: Vec<String>,
}

impl Canvas {
    pub(super) fn new(case: &Case<'_>) -> Self {
        let mut lanes: Vec<String> = Vec::new();
        let mut bands = Vec::new();
        for band in &case.timeline.bands {
            let known = lanes.iter().position(|lane| *lane == band.class);
            let lane = known.unwrap_or_else(|| {
                if lanes.len() < LANES {
                    lanes.push(band.class.clone());
                }
                lanes.len() - 1
            });
            bands.push((band.clone(), lane));
        }
        Self { end: case.record.end.max(MS), bands, lanes }
    }

    /// Nanoseconds from edge to edge.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// How far to the right a time is.
    pub(super) fn x(&self, time: u64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * ratio(time.min(self.end), self.end)
    }

    /// Pixels at the top that the lanes of faults take.
    pub(super) fn top(&self) -> f64 {
        10.0 + LANE * self.lanes.len() as f64
    }

    /// How far down a value is in a chart of this height.
    pub(super) fn y(&self, value: f64, scale: Scale, height: f64) -> f64 {
        let share = match scale {
            Scale::Linear { to } => value / to.max(f64::MIN_POSITIVE),
            Scale::Log { from, to } => {
                (value.max(from) / from).ln() / (to / from).ln().max(f64::MIN_POSITIVE)
            }
        };
        let (top, bottom) = (self.top(), height - BOTTOM);
        bottom - (bottom - top) * share.clamp(0.0, 1.0)
    }

    /// A chart: the faults, the scales, and what is drawn on them.
    pub(super) fn draw(&self, height: f64, ticks: &[(f64, String)], body: &str) -> String {
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n");
        self.faults(height, &mut svg);
        for (y, label) in ticks {
            put(
                &mut svg,
                format_args!(
                    "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                     <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                    WIDTH - RIGHT,
                    LEFT - 6.0,
                    y + 4.0,
                    escape(label)
                ),
            );
        }
        let seconds = self.end as f64 / 1e9;
        let step = nice(seconds / 10.0);
        let mut at = 0.0;
        while at <= seconds {
            let x = LEFT + (WIDTH - LEFT - RIGHT) * at / seconds;
            let label = if step < 1.0 { format!("{at:.1} s") } else { format!("{at:.0} s") };
            put(
                &mut svg,
                format_args!(
                    "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>\n",
                    height - 6.0
                ),
            );
            at += step;
        }
        svg.push_str(body);
        svg.push_str("</svg>\n");
        svg + &self.legend()
    }

    fn faults(&self, height: f64, svg: &mut String) {
        for (band, lane) in &self.bands {
            let (from, to) = (self.x(band.began), self.x(band.settled.min(self.end)));
            let colour = lane % COLOURS;
            let (width, tall) = ((to - from).max(1.0), height - BOTTOM);
            let y = 4.0 + LANE * *lane as f64;
            let what = escape(&format!(
                "{} of {} from {} to {} ms",
                band.class,
                band.targets.join(" "),
                band.began / MS,
                band.settled.min(self.end) / MS
            ));
            put(
                svg,
                format_args!(
                    "<g><title>{what}</title>\
                     <rect class=\"band\" x=\"{from:.1}\" y=\"0\" width=\"{width:.1}\" height=\"{tall}\" fill=\"var(--c{colour})\"/>\
                     <rect class=\"lane\" x=\"{from:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{}\" fill=\"var(--c{colour})\"/>\
                     <line class=\"edge\" x1=\"{from:.1}\" x2=\"{from:.1}\" y1=\"0\" y2=\"{tall}\" stroke=\"var(--c{colour})\"/></g>\n",
                    LANE - 1.0
                ),
            );
        }
    }

    fn legend(&self) -> String {
        let mut legend = String::new();
        for (lane, class) in self.lanes.iter().enumerate() {
            let colour = lane % COLOURS;
            put(
                &mut legend,
                format_args!("<i style=\"background:var(--c{colour})\"></i>{}", escape(class)),
            );
        }
        if legend.is_empty() { legend } else { format!("<p class=\"legend\">faults:{legend}</p>") }
    }

    /// A line through points.
    pub(super) fn line(&self, points: &[(f64, f64)], class: &str, name: &str) -> String {
        let mut path = String::new();
        for (nth, (x, y)) in points.iter().enumerate() {
            let step = if nth == 0 { 'M' } else { 'L' };
            put(&mut path, format_args!("{step}{x:.1} {y:.1}"));
        }
        let name = escape(name);
        format!("<path class=\"series {class}\" d=\"{path}\"><title>{name}</title></path>\n")
    }
}

/// Writing to a string does not fail.
pub(super) fn put(to: &mut String, what: std::fmt::Arguments<'_>) {
    to.write_fmt(what).expect("a string takes everything");
}

/// A share of a whole.
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// The next 1, 2 or 5 times a power of ten.
pub(super) fn nice(step: f64) -> f64 {
    let power = 10f64.powf(step.max(1e-9).log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| step <= f * power);
    factor.unwrap_or(10.0) * power
}

/// Marks of a linear scale, up to a round number of at least `most`.
pub(super) fn linear(canvas: &Canvas, most: f64, height: f64) -> (Scale, Vec<(f64, String)>) {
    let step = nice(most.max(1.0) / 4.0);
    let to = (most.max(1.0) / step).ceil() * step;
    let scale = Scale::Linear { to };
    let mut ticks = Vec::new();
    let mut at = 0.0;
    while at <= to {
        ticks.push((canvas.y(at, scale, height), format!("{at:.0}")));
        at += step;
    }
    (scale, ticks)
}

#[cfg(test)]
mod tests {
    use super::nice;

    #[test]
    fn steps_are_round() {
        for (step, round) in [(0.3, 0.5), (1.0, 1.0), (1.1, 2.0), (7.0, 10.0), (43.0, 50.0)] {
            assert!((nice(step) - round).abs() < 1e-9, "{step}");
        }
    }
}
