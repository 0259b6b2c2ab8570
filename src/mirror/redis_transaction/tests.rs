//! Tests how replies of Redis are interpreted.

use super::super::checkpoint::Checkpoint;
use super::super::position::EventPosition;
use super::*;

fn replies(text: &str) -> Vec<Value> {
    let mut bytes = text.as_bytes();
    let mut parser = redis::Parser::new();
    std::iter::from_fn(|| parser.parse_value(&mut bytes).ok()).collect()
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        epoch: "e".into(),
        timeline: 1,
        resync_number: 4,
        position: EventPosition { seq: 5, offset: 0 },
    }
}

/// A transaction with one entry for each of two orgs.
fn transaction() -> RedisTransaction {
    let entry = |seq| Entry { ms: 10, seq, event_id: seq, data: r#"{"created_at":"t"}"#.into() };
    let mut transaction = RedisTransaction::default();
    transaction.add("a", "s:a", &[entry(0)], 100);
    transaction.add("b", "s:b", &[entry(1)], 100);
    transaction
}

fn outcome(text: &str) -> Outcome {
    transaction().outcome(&replies(text), &checkpoint().to_string())
}

const QUEUED: &str = "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n";
const CHECKPOINT: &str = "+OK\r\n$11\r\n2 e 1 4 5 0\r\n";

#[test]
fn the_count_of_commands_is_right() {
    let commands = transaction().pack(&OwnKeys::beside("m".into()), &checkpoint().to_string());
    let count = commands.count();
    let text = String::from_utf8(commands.into_bytes()).unwrap();
    assert_eq!(text.matches("\r\n*").count() + 1, count);
    assert!(text.contains("$2\r\nts\r\n$1\r\nt\r\n"));
    assert!(text.contains("XADD\r\n$3\r\ns:a\r\n$6\r\nMAXLEN\r\n$1\r\n~\r\n$3\r\n100\r\n$4\r\n10-0\r\n"));
}

#[test]
fn a_written_transaction_is_done() {
    let text = format!("{QUEUED}*3\r\n$4\r\n10-0\r\n$4\r\n10-1\r\n+OK\r\n{CHECKPOINT}");
    assert_eq!(outcome(&text), Outcome::Done(vec![]));
}

#[test]
fn an_error_of_a_key_affects_only_its_org() {
    let wrong = "WRONGTYPE Operation against a key holding the wrong kind of value";
    let text = format!("{QUEUED}*3\r\n-{wrong}\r\n$4\r\n10-1\r\n+OK\r\n{CHECKPOINT}");
    let Outcome::Done(failed) = outcome(&text) else { panic!() };
    assert_eq!((failed.len(), &*failed[0].0), (1, "a"));
    let smaller = "ERR The ID specified in XADD is equal or smaller than the target stream top item";
    let text = format!("{QUEUED}*3\r\n$4\r\n10-0\r\n-{smaller}\r\n+OK\r\n{CHECKPOINT}");
    let Outcome::Done(failed) = outcome(&text) else { panic!() };
    assert_eq!(&*failed[0].0, "b");
    let text = format!(
        "+OK\r\n+QUEUED\r\n-NOPERM No permissions to access a key\r\n+QUEUED\r\n-EXECABORT Transaction discarded\r\n{CHECKPOINT}"
    );
    let Outcome::Aborted(failed) = outcome(&text) else { panic!() };
    assert_eq!(&*failed[0].0, "b");
}

#[test]
fn a_server_that_accepts_no_writes_refuses_the_transaction() {
    for error in [
        "OOM command not allowed",
        "MISCONF Redis is configured",
        "READONLY You can't write",
        "LOADING Redis is",
        "NOPERM User default has no permissions to run the 'xadd' command",
        "ERR unknown command 'XADD', with args beginning with: 'tailstream:stream:a'",
    ] {
        let text = format!(
            "+OK\r\n-{error}\r\n-{error}\r\n-{error}\r\n-EXECABORT Transaction discarded\r\n{CHECKPOINT}"
        );
        let Outcome::Refused(message) = outcome(&text) else { panic!("{error}") };
        assert!(message.contains(error.split(' ').next().unwrap()), "{message}");
    }
    let text = format!("{QUEUED}-MISCONF Redis is configured\r\n{CHECKPOINT}");
    assert!(matches!(outcome(&text), Outcome::Refused(_)));
}

#[test]
fn a_checkpoint_that_changed_means_overtaken() {
    assert_eq!(outcome(&format!("{QUEUED}*-1\r\n{CHECKPOINT}")), Outcome::Overtaken);
    let flushed = format!("{QUEUED}*3\r\n$4\r\n10-0\r\n$4\r\n10-1\r\n+OK\r\n+OK\r\n$-1\r\n");
    assert_eq!(outcome(&flushed), Outcome::Overtaken);
    assert!(matches!(transaction().outcome(&[], &checkpoint().to_string()), Outcome::Refused(_)));
}

#[test]
fn only_errors_of_the_key_are_tolerated_when_trimming() {
    let mut transaction = RedisTransaction::default();
    transaction.trim_to_limits("a", "s:a", 10, -5);
    let text = |error: &str| {
        format!("+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n-{error}\r\n:0\r\n+OK\r\n{CHECKPOINT}")
    };
    let outcome = |error: &str| transaction.outcome(&replies(&text(error)), &checkpoint().to_string());
    let Outcome::Done(failed) = outcome("WRONGTYPE Operation against a key") else { panic!() };
    assert_eq!((failed.len(), &*failed[0].0), (1, "a"));
    assert!(matches!(outcome("OOM command not allowed"), Outcome::Refused(_)));
    let commands =
        String::from_utf8(transaction.pack(&OwnKeys::beside("m".into()), "x").into_bytes()).unwrap();
    assert!(commands.contains("MINID\r\n$1\r\n~\r\n$1\r\n0\r\n"), "no id is negative: {commands}");
}

#[test]
fn no_stream_is_trimmed_by_a_negative_id() {
    let mut transaction = RedisTransaction::default();
    transaction.trim("a", "s:a", -1_000, 5);
    let commands =
        String::from_utf8(transaction.pack(&OwnKeys::beside("m".into()), "x").into_bytes()).unwrap();
    assert!(commands.contains("MINID\r\n$1\r\n=\r\n$3\r\n0-0\r\n"), "{commands}");
}
