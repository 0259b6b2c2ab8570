//! What the terminal shows.

use std::io::{self, IsTerminal, Write};

use crate::comparison::{Goal, KEYS};
use crate::results::Results;

pub fn heading(title: &str) {
    println!("\n== {title}");
}

pub fn say(line: &str) {
    println!("{line}");
}

/// How far a comparison is, on one line that is written again and again.
pub fn progress(what: &str, done: usize, of: usize) {
    if !io::stdout().is_terminal() {
        return;
    }
    print!("\r\x1b[K{what}: {done}/{of}");
    if done == of {
        print!("\r\x1b[K");
    }
    // A terminal that is gone is no reason to stop measuring.
    let _ = io::stdout().flush();
}

/// All figures, and whether they reach what they must.
pub fn table(results: &Results) {
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

/// A number as people read it: with digits grouped by thousands, small ones with decimals.
pub fn number(value: f64) -> String {
    if value.abs() < 10.0 {
        return format!("{value:.3}");
    }
    if value.abs() < 1_000.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 && digit.is_ascii_digit() {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number(0.5), "0.500");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(1_234_567.8), "1,234,568");
        assert_eq!(number(1_000.0), "1,000");
    }
}
