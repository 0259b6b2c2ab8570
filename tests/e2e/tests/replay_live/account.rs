//! What a reader was handed against what the tables hold.

use std::collections::HashMap;

use postgres::GenericClient;
use tailstream_e2e::stream::{self, Entry};

use crate::client::{Handed, Item, Order};
use crate::reader::{Reader, event_id, order_of};

/// Fails unless every event of the org came once, in order, with its contents, and no gap was reported.
#[track_caller]
pub fn check(reader: &Reader, client: &mut impl GenericClient) {
    assert!(reader.gaps().is_empty(), "gaps were reported: {:?}", reader.gaps());
    let expected = stream::expected(client, &reader.source.org);
    let missing = missing(reader, &expected);
    assert!(
        missing.is_empty(),
        "{} of {} events did not come, the first is {:?}",
        missing.len(),
        expected.len(),
        missing[0]
    );
    check_what_came(reader, &expected);
}

/// Events that did not come; no event comes twice, or the reader had failed.
pub fn missing<'e>(reader: &Reader, expected: &'e [Entry]) -> Vec<&'e Entry> {
    expected.iter().filter(|entry| !reader.has(entry.event_id)).collect()
}

/// Fails unless what came is in order and what the tables hold, which may be less.
#[track_caller]
pub fn check_what_came(reader: &Reader, expected: &[Entry]) {
    let places = expected.iter().enumerate().map(|(place, entry)| (entry.event_id, (place, entry)));
    let places: HashMap<i64, (usize, &Entry)> = places.collect();
    for handed in &reader.handed {
        if let Item::Event { id, data } = &handed.item
            && let Some((_, entry)) = places.get(id)
        {
            assert_eq!(data, &entry.data, "event {id} at {:?}", handed.place);
        }
    }
    let known = |handed: &Handed| event_id(&handed.item).and_then(|id| places.get(&id).copied());
    let (history, rest): (Vec<&Handed>, Vec<&Handed>) =
        reader.handed.iter().partition(|handed| order_of(&handed.place) == Some(Order::EventTime));
    let times: Vec<(&str, i64)> =
        history.iter().filter_map(|handed| known(handed)).map(|(_, e)| (&*e.time, e.event_id)).collect();
    assert!(times.is_sorted(), "the history is not in the order of event times");
    let boundary = history.iter().filter_map(|handed| known(handed)).map(|(place, _)| place).max();
    let order: Vec<usize> = rest.iter().filter_map(|handed| known(handed)).map(|(place, _)| place).collect();
    assert!(order.is_sorted(), "what follows the history is not in the order of the positions");
    assert!(boundary < order.first().copied() || order.is_empty(), "the history reached behind its boundary");
}
