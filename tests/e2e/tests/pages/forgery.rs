//! Changed, cut, stretched and made-up tokens: refused like any other, and the session goes on.

use std::time::Instant;

use postgres::{Client, Statement};
use tailstream_e2e::database::one;
use tailstream_e2e::{Random, budget, refused};

use crate::page::{Direction, Request};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A session that tries tokens, and real ones to begin with.
struct Forger {
    client: Client,
    uses: [Statement; 3],
    tokens: Vec<String>,
}

impl Forger {
    fn new(client: Client) -> Self {
        let mut client = client;
        for org in ["acme", "other"] {
            client.execute("SELECT ts_ingest($1, '[{},{},{}]')", &[&org]).expect("ingest");
        }
        let uses = [
            "SELECT id FROM ts_replay_page('acme', NULL, NULL, after => $1)",
            "SELECT id FROM ts_replay_page('acme', NULL, NULL, after => $1, direction => 'backward')",
            "SELECT id FROM ts_replay_schedule('acme', now() - interval '1 hour', now() + interval '1 minute', after => $1)",
        ]
        .map(|sql| client.prepare(sql).expect("a statement"));
        let mut tokens = Vec::new();
        for direction in Direction::BOTH {
            let page = Request::of("acme", direction).page(&mut client);
            tokens.extend(page.into_iter().map(|row| row.cursor));
        }
        let scheduled = "SELECT cursor FROM ts_replay_schedule('acme', now() - interval '1 hour', now() + interval '1 minute') LIMIT 1";
        tokens.push(one(&mut client, scheduled));
        Self { client, uses, tokens }
    }

    #[track_caller]
    fn check(&mut self, token: &str) {
        for number in 0..self.uses.len() {
            self.check_use(number, token);
        }
    }

    #[track_caller]
    fn check_use(&mut self, number: usize, token: &str) {
        let what = format!("{token:.200}");
        let error = refused(&what, self.client.query(&self.uses[number], &[&token]), &["22023"]);
        assert_eq!(error.message(), "token is not valid", "{what}");
    }
}

fn text(random: &mut Random, length: usize) -> String {
    (0..length).map(|_| char::from(ALPHABET[random.below(ALPHABET.len())])).collect()
}

#[test]
fn a_token_with_another_character_is_refused() {
    let database = crate::database("changed");
    let mut forger = Forger::new(database.connect());
    let (forward, scheduled) = (forger.tokens[0].clone(), forger.tokens[forger.tokens.len() - 1].clone());
    for (number, token) in [(0, forward), (2, scheduled)] {
        for place in 0..token.len() {
            for other in ALPHABET.iter().chain(b"=+/ ") {
                let mut changed = token.clone().into_bytes();
                if changed[place] != *other {
                    changed[place] = *other;
                    forger.check_use(number, &String::from_utf8(changed).expect("text"));
                }
            }
        }
        let genuine = forger.client.query(&forger.uses[number], &[&token]).expect("the token itself");
        assert_eq!(genuine.len(), 2);
    }
}

#[test]
fn a_token_cut_off_or_stretched_is_refused() {
    let database = crate::database("cut");
    let mut forger = Forger::new(database.connect());
    for token in forger.tokens.clone() {
        for length in 0..token.len() {
            forger.check(&token[..length]);
            forger.check(&token[token.len() - length..]);
            forger.check(&format!("{}{}", &token[..length], &token[length + 1..]));
        }
        for end in ["A", "AA", "AAA", "AAAA", "=", "==", " ", "\n", "\t", "\u{a0}", "é", "-", "🦀"] {
            forger.check(&format!("{token}{end}"));
            forger.check(&format!("{end}{token}"));
            forger.check(&format!("{}{end}{}", &token[..8], &token[8..]));
        }
        forger.check(&format!("{token}{token}"));
        forger.check(&format!("{token}.{token}"));
        forger.check(&token.to_ascii_lowercase());
        forger.check(&token.to_ascii_uppercase());
    }
}

#[test]
fn parts_of_several_tokens_make_no_token() {
    let database = crate::database("spliced");
    let mut forger = Forger::new(database.connect());
    let other = Request::of("other", Direction::Forward).page(&mut forger.client);
    let mut tokens = forger.tokens.clone();
    tokens.extend(other.into_iter().map(|row| row.cursor));
    let mut made = 0;
    for first in &tokens {
        for second in &tokens {
            for cut in 1..first.len().min(second.len()) {
                let spliced = format!("{}{}", &first[..cut], &second[cut..]);
                if !tokens.contains(&spliced) {
                    forger.check_use(made % 3, &spliced);
                    made += 1;
                }
            }
        }
    }
    assert!(made > 500, "only {made} were made");
}

#[test]
fn made_up_tokens_are_refused() {
    let mut random = Random::new("forgery");
    let database = crate::database("made_up");
    let mut forger = Forger::new(database.connect());
    for odd in ["", " ", "null", "=", "====", "\u{feff}", "%s%n", "'; SELECT 1 --", "\u{1}\u{7f}", "日本語"]
    {
        forger.check(odd);
    }
    for length in [101, 1000, 1_000_000, 20_000_000] {
        forger.check(&text(&mut random, length));
    }
    let until = Instant::now() + budget(5.0);
    let mut tried = 0;
    while Instant::now() < until || tried < 1000 {
        let number = random.below(forger.tokens.len());
        let model = forger.tokens[number].clone();
        let token = match random.below(4) {
            // The right form, and the beginning of a real one.
            0 => {
                let kept = random.below(model.len());
                format!("{}{}", &model[..kept], text(&mut random, model.len() - kept))
            }
            1 => text(&mut random, model.len()),
            2 => {
                let length = random.below(130);
                text(&mut random, length)
            }
            _ => (0..random.below(60))
                .map(|_| char::from_u32(1 + random.below(0x4000) as u32).unwrap_or('x'))
                .collect(),
        };
        if !forger.tokens.contains(&token) {
            forger.check(&token);
            tried += 1;
        }
    }
    println!("{tried} tokens");
    assert_eq!(one::<i32>(&mut forger.client, "SELECT 1"), 1);
}
