//! Drawings, inline and without style attributes, which the content security policy would refuse.

use std::fmt::Write as _;

use actor::{Bucket, Sample};
use maud::{Markup, PreEscaped, html};

use super::parts::{count, micros, rate};

/// Samples of 2 s that one point of a sparkline stands for.
const EACH: usize = 5;
/// Points of a sparkline: ten minutes.
const POINTS: usize = 60;
const WIDTH: f64 = 240.0;

/// A skep: a small hive of hexagonal cells.
pub(super) fn skep() -> Markup {
    PreEscaped(include_str!("skep.svg").trim_end().to_owned())
}

/// Messages per second over the last minutes, newest at the right.
pub(super) fn sparkline(samples: &[Sample], class: &'static str) -> Markup {
    let rates = points(samples, |s| f64::from(s.handled) / Sample::SECONDS as f64, |all| all.iter().sum::<f64>() / all.len() as f64);
    let most = rates.iter().copied().fold(0.0, f64::max);
    let minutes = (samples.len() as u64 * Sample::SECONDS).div_ceil(60);
    let label = if most > 0.0 { format!("last {minutes} minutes: at most {} per second", rate(most)) } else { "nothing handled lately".to_owned() };
    html! {
        svg.spark.(class) viewBox={ "0 0 " (WIDTH) " 40" } preserveAspectRatio="none" role="img" aria-label=(label) {
            path.base d={ "M0 39.5H" (WIDTH) } {}
            @if most > 0.0 {
                path.area d={ (curve(&rates, most, 38.0)) "V40H" (format!("{:.0}", x_of(POINTS - rates.len()))) "Z" } {}
                path.line d=(curve(&rates, most, 38.0)) {}
            }
        }
    }
}

/// Messages that waited over the last minutes, against the capacity.
pub(super) fn depths(samples: &[Sample], capacity: usize) -> Markup {
    let depths = points(samples, |s| f64::from(s.depth), |all| all.iter().copied().fold(0.0, f64::max));
    let most = depths.iter().copied().fold(0.0, f64::max);
    let label = format!("messages that waited in the last minutes: at most {} of {}", count(most as u64), count(capacity as u64));
    html! {
        svg.spark.wide viewBox={ "0 0 " (WIDTH) " 40" } preserveAspectRatio="none" role="img" aria-label=(label) {
            path.base d={ "M0 39.5H" (WIDTH) } {}
            @if most > 0.0 {
                path.area.depth d={ (curve(&depths, most.max(1.0), 38.0)) "V40H" (format!("{:.0}", x_of(POINTS - depths.len()))) "Z" } {}
                path.line.depth d=(curve(&depths, most.max(1.0), 38.0)) {}
            }
        }
    }
}

fn points(samples: &[Sample], value: impl Fn(&Sample) -> f64, join: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut points: Vec<f64> = samples.rchunks(EACH).take(POINTS).map(|chunk| join(&chunk.iter().map(&value).collect::<Vec<_>>())).collect();
    points.reverse();
    points
}

fn x_of(point: usize) -> f64 {
    point as f64 * WIDTH / (POINTS - 1) as f64
}

fn curve(values: &[f64], most: f64, height: f64) -> String {
    let first = POINTS - values.len();
    let mut path = String::with_capacity(values.len() * 10);
    for (index, value) in values.iter().enumerate() {
        let (x, y) = (x_of(first + index), 39.0 - value / most * height);
        let _ = write!(path, "{}{x:.0} {y:.1}", if index == 0 { 'M' } else { 'L' });
    }
    path
}

/// How long messages took: one column for each power of two.
pub(super) fn histogram(buckets: &[Bucket]) -> Markup {
    let most = buckets.iter().map(|b| b.count).max().unwrap_or(0).max(1);
    let width = 640.0 / buckets.len().max(1) as f64;
    let label = format!("time per message, in {} steps of a factor of two; the table below has the same numbers", buckets.len());
    html! {
        svg.histogram viewBox="0 0 640 150" role="img" aria-label=(label) {
            path.base d="M0 120.5H640" {}
            @for (index, bucket) in buckets.iter().enumerate() {
                // By the square root: a rare slow message must stay visible beside thousands of fast ones.
                @let height = (bucket.count as f64 / most as f64).sqrt() * 112.0;
                @let x = index as f64 * width;
                rect.bar x=(format!("{:.1}", x + width * 0.12)) y=(format!("{:.1}", 120.0 - height)) width=(format!("{:.1}", width * 0.76)) height=(format!("{height:.1}")) rx="2" {
                    title { "at most " (micros(bucket.up_to_us)) ": " (count(bucket.count)) }
                }
                @if buckets.len() <= 12 || index % 2 == 0 {
                    text x=(format!("{:.1}", x + width / 2.0)) y="140" text-anchor="middle" { (micros(bucket.up_to_us)) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_has_a_bounded_number_of_points_and_says_what_it_shows() {
        let samples: Vec<_> = (0..300).map(|n| Sample { handled: n, depth: 0 }).collect();
        let drawn = sparkline(&samples, "wide").into_string();
        assert!(drawn.contains("last 10 minutes: at most 149 per second") && drawn.len() < 2500, "{} {drawn}", drawn.len());
        assert!(sparkline(&[], "wide").into_string().contains("nothing handled lately"));
        assert!(sparkline(&samples[..1], "wide").into_string().contains("nothing handled"));
    }
}
