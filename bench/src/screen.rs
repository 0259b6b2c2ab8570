//! The output on the terminal.

use std::io::{self, IsTerminal, Write};

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
