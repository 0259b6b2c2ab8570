//! The table at the end of a run.

use crate::key::{Goal, KEYS};
use crate::results::Results;
use crate::screen::{heading, number};

/// All figures, and whether they reach what they must.
pub fn print(results: &Results) {
    heading("Results (higher is better, unless the goal is a limit: <=)");
    println!("{:<30} {:>20} {:>20} {:>9} {:>8} {:>8}", "key", "ours", "theirs", "figure", "must", "aim");
    for key in KEYS {
        let Some(finding) = results.finding(key.key) else {
            continue;
        };
        let value = finding.value;
        let verdict = match key.goal {
            Goal::None => "",
            goal if goal.is_aim_reached(value) => "pass, aim reached",
            goal if goal.is_reached(value) => "pass",
            _ => "FAIL",
        };
        let (must, aim) = match key.goal {
            Goal::AtLeast { must, aim } => (must.to_string(), aim.to_string()),
            Goal::AtMost { must, aim } => (format!("<={must}"), format!("<={aim}")),
            Goal::None => (String::new(), String::new()),
        };
        let value = if value.abs() < 1_000.0 { format!("{value:.2}") } else { number(value) };
        println!(
            "{:<30} {:>20} {:>20} {value:>9} {must:>8} {aim:>8}  {verdict}",
            key.key, finding.ours, finding.theirs
        );
    }
    let absolute = results.absolute();
    if absolute.is_empty() {
        return;
    }
    println!();
    for (name, value) in absolute {
        println!("{name:<48} {value:>14}");
    }
}
