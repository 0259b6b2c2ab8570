//! The output of the demo: headings, sentences, statements and their results.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use postgres::error::DbError;
use postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

/// A wider value is cut; the demo is read in a terminal.
const CELL_WIDTH: usize = 48;
/// The last column has the rest of the line.
const LAST_CELL_WIDTH: usize = 100;
/// Another program's lines are longer.
const OUTPUT_WIDTH: usize = 200;

/// Where the demo prints to. Every block begins with an empty line.
pub struct Screen;

/// A connection whose statements are shown.
pub struct Session {
    pub client: Client,
    /// When the last statement's answer came.
    pub answered_at: Instant,
}

impl Screen {
    pub fn new() -> Self {
        Self
    }

    pub fn heading(&self, text: &str) {
        println!("\n== {text}");
    }

    pub fn say(&self, text: &str) {
        println!("\n{text}");
    }

    pub fn session(&self, client: Client) -> Session {
        Session { client, answered_at: Instant::now() }
    }

    /// What another program printed.
    pub fn output(&self, text: &str) {
        println!();
        for line in text.lines() {
            println!("    {}", cut(line, OUTPUT_WIDTH));
        }
    }

    /// A table with the columns' names above; numbers are set to the right.
    pub fn table(&self, header: &[&str], rows: &[Vec<String>]) {
        print!("\n{}", layout(header, rows));
    }
}

impl Session {
    /// Shows a statement, runs it and shows its result.
    pub fn run(&mut self, sql: &str) -> Result<()> {
        show_statement(sql);
        let started = Instant::now();
        let messages = self.client.simple_query(sql).with_context(|| format!("this failed: {sql}"))?;
        self.answered_at = Instant::now();
        show_result(&messages, self.answered_at - started);
        Ok(())
    }

    /// Shows a statement that must fail, and its error as psql shows errors.
    pub fn run_failing(&mut self, sql: &str) -> Result<()> {
        show_statement(sql);
        let error = match self.client.simple_query(sql) {
            Ok(_) => anyhow::bail!("this should have been refused, and was not: {sql}"),
            Err(error) => error,
        };
        let refusal = error.as_db_error().cloned();
        show_error(&refusal.ok_or(error).with_context(|| format!("this failed: {sql}"))?);
        Ok(())
    }
}

pub fn show_statement(sql: &str) {
    println!();
    for line in sql.lines() {
        println!("    {line}");
    }
}

fn show_error(error: &DbError) {
    println!();
    println!("    {}:  {} (SQLSTATE {})", error.severity(), error.message(), error.code().code());
    for (label, text) in [("DETAIL", error.detail()), ("HINT", error.hint())] {
        if let Some(text) = text {
            println!("    {label}:  {text}");
        }
    }
}

fn show_result(messages: &[SimpleQueryMessage], took: Duration) {
    println!();
    let rows: Vec<&SimpleQueryRow> = messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })
        .collect();
    let header: Vec<&str> = messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::RowDescription(columns) => Some(columns.iter()),
            _ => None,
        })
        .flatten()
        .map(|column| column.name())
        .collect();
    let cells: Vec<Vec<String>> = rows.iter().map(|row| cells_of(row)).collect();
    // A function that returns nothing still gives a row.
    let says_nothing = !cells.is_empty() && cells.iter().flatten().all(String::is_empty);
    if header.is_empty() || says_nothing {
        println!("    done in {}", milliseconds(took));
        return;
    }
    print!("{}", layout(&header, &cells));
    let plural = if rows.len() == 1 { "" } else { "s" };
    println!("    ({} row{plural}, {})", rows.len(), milliseconds(took));
}

fn cells_of(row: &SimpleQueryRow) -> Vec<String> {
    (0..row.len())
        .map(|index| {
            let is_last = index + 1 == row.len();
            let width = if is_last { LAST_CELL_WIDTH } else { CELL_WIDTH };
            cut(row.get(index).unwrap_or_default(), width)
        })
        .collect()
}

fn cut(value: &str, width: usize) -> String {
    let plain: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match plain.char_indices().nth(width) {
        Some((end, _)) => format!("{}...", &plain[..end]),
        None => plain,
    }
}

fn milliseconds(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1000.0)
}

fn layout(header: &[&str], rows: &[Vec<String>]) -> String {
    let column = |index: usize| rows.iter().filter_map(move |row| row.get(index));
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(index, name)| {
            column(index).map(|cell| cell.chars().count()).chain([name.chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let numeric: Vec<bool> =
        (0..header.len()).map(|index| column(index).all(|cell| is_number(cell))).collect();
    let line = |cells: &[&str]| {
        let cells: Vec<String> = cells
            .iter()
            .enumerate()
            .map(|(index, cell)| match numeric[index] {
                true => format!("{cell:>width$}", width = widths[index]),
                false => format!("{cell:<width$}", width = widths[index]),
            })
            .collect();
        format!("    {}", cells.join("  ")).trim_end().to_owned() + "\n"
    };
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    let mut text = line(header);
    text += &line(&rule.iter().map(String::as_str).collect::<Vec<_>>());
    for row in rows {
        text += &line(&row.iter().map(String::as_str).collect::<Vec<_>>());
    }
    text
}

fn is_number(cell: &str) -> bool {
    cell.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | ',' | '-'))
}

/// A count with its thousands separated.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn numbers_stand_right_and_text_left() {
        let rows = [vec!["acme".to_owned(), "9".to_owned()], vec!["x".to_owned(), "1,000".to_owned()]];
        assert_eq!(
            layout(&["org", "n"], &rows),
            "    org       n\n    ----  -----\n    acme      9\n    x     1,000\n"
        );
    }

    #[test]
    fn long_and_odd_values_are_cut() {
        assert_eq!(cut("a\nb", 3), "a b");
        assert_eq!(cut(&"ä".repeat(100), 10), "ä".repeat(10) + "...");
    }
}
