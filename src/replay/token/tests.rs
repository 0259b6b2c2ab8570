use proptest::prelude::*;

use super::*;

fn signer(org: &str) -> Signer {
    Signer::new(b"a key of thirty-two bytes, or so", org)
}

fn written(signer: &Signer, token: &Token) -> String {
    signer.text(token)
}

fn places() -> impl Strategy<Value = Place> {
    let time = (any::<i64>(), any::<i64>(), any::<bool>());
    let arrival = (any::<i64>(), 0..=65_536, 0..1_i64 << 45);
    prop_oneof![
        time.prop_map(|(created_at, id, backward)| Place::Time { created_at, id, backward }),
        arrival.prop_map(|(seq, offset, placed_ms)| Place::Arrival { seq, offset, placed_ms }),
    ]
}

fn tokens() -> impl Strategy<Value = Token> {
    let fetched_from = (any::<i64>(), any::<i32>())
        .prop_map(|(cursor, seek_generation)| FetchedFrom { cursor, seek_generation });
    let clock = (any::<i64>(), any::<i64>()).prop_map(|(ideal, shown)| Clock { ideal, shown });
    // No token has both: what is fetched is not played.
    let extra = prop_oneof![
        Just((None, None)),
        fetched_from.prop_map(|fetched_from| (Some(fetched_from), None)),
        clock.prop_map(|clock| (None, Some(clock))),
    ];
    let boundary = (0..1_i64 << 43, any::<i64>()).prop_map(|(seq, ms)| Boundary::new(seq, ms));
    let times = (prop::option::of(boundary), any::<Option<i64>>());
    (places(), any::<u32>(), times, extra).prop_map(
        |(place, incarnation, (boundary, accounted_until), (fetched_from, clock))| Token {
            place,
            incarnation,
            boundary,
            accounted_until,
            fetched_from,
            clock,
        },
    )
}

proptest! {
    #[test]
    fn a_token_survives_its_text(token in tokens()) {
        let text = written(&signer("acme"), &token);
        prop_assert!(text.len() <= 104, "{} characters", text.len());
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        prop_assert_eq!(signer("acme").read(&text), Ok(token));
    }

    #[test]
    fn another_org_is_told_so(token in tokens(), org in "[a-z]{1,4}") {
        prop_assume!(org != "acme");
        prop_assert_eq!(signer(&org).read(&written(&signer("acme"), &token)), Err(Refusal::Foreign));
    }

    #[test]
    fn a_changed_token_is_refused(token in tokens(), at in any::<prop::sample::Index>(), with in "[A-Za-z0-9_-]") {
        let text = written(&signer("acme"), &token);
        let at = at.index(text.len());
        let changed = format!("{}{with}{}", &text[..at], &text[at + 1..]);
        prop_assume!(changed != text);
        prop_assert_eq!(signer("acme").read(&changed), Err(Refusal::Invalid));
    }

    #[test]
    fn what_is_no_token_is_refused(text in ".{0,200}") {
        prop_assert_eq!(signer("acme").read(&text), Err(Refusal::Invalid));
    }

    #[test]
    fn a_token_cut_short_or_made_longer_is_refused(token in tokens(), cut in 1_usize..40) {
        let text = written(&signer("acme"), &token);
        prop_assert_eq!(signer("acme").read(&text[..text.len() - cut]), Err(Refusal::Invalid));
        prop_assert_eq!(signer("acme").read(&format!("{text}A")), Err(Refusal::Invalid));
    }
}

#[test]
fn another_key_refuses() {
    let text = written(&signer("acme"), &Token::at(Place::Time { created_at: 1, id: 2, backward: false }, 3));
    assert_eq!(Signer::new(b"another", "acme").read(&text), Err(Refusal::Invalid));
}
