//! Orgs that are not mirrored, or not always.

use std::time::{Duration, Instant};

use tailstream_e2e::{Random, Sides, budget};

use crate::account::check;
use crate::client::{Order, Pace};
use crate::crowd::{last_event, pause, work};
use crate::disconnects::come_and_go;
use crate::reader::{PACE, Reader};
use crate::{ORG, scene};

fn switch(sides: &mut Sides, org: &str, on: bool) {
    sides.client.execute("SELECT ts_set_mirror($1, $2)", &[&org, &on]).expect("ts_set_mirror");
}

#[test]
fn what_came_while_the_mirror_was_off_is_found_in_the_database() {
    let (_database, mut sides, source) = scene("toggled");
    let never_quiet = source.at(Pace { quiet: Duration::from_secs(3_600), ..PACE });
    sides.ingest(ORG, 10);
    let mut watching = Reader::open(&source, None);
    let mut waiting = Reader::open(&never_quiet, None);
    watching.read_pages();
    waiting.read_pages();
    for _ in 0..3 {
        waiting.read_until(last_event(&source));
        switch(&mut sides, ORG, false);
        let unseen = sides.ingest(ORG, 7) << 16;
        // This one asks when it is quiet.
        watching.read_until(unseen);
        // This one sees nothing, and does not miss it.
        waiting.step();
        assert!(!waiting.has(unseen));
        sides.wait_until_placed();
        switch(&mut sides, ORG, true);
        let seen = sides.ingest(ORG, 3) << 16;
        waiting.read_until(seen);
        watching.read_until(seen);
        assert!(waiting.has(unseen), "what was left out of the stream came before what is in it");
    }
    let last = last_event(&source);
    for reader in [&mut watching, &mut waiting] {
        reader.read_until(last);
        check(reader, &mut sides.client);
    }
}

#[test]
fn an_org_is_read_without_a_stream_and_with_one_that_comes_and_goes() {
    let mut random = Random::new("switched");
    let (_database, mut sides, source) = scene("unmirrored");
    let until = Instant::now() + budget(6.0);
    let mut round = 0;
    while Instant::now() < until || round < 2 {
        let source = source.of(&format!("acme-{round}"));
        switch(&mut sides, &source.org, false);
        let readers = work(&source, &random.fork(round), come_and_go, || {
            pause(&mut random, 1_000);
            for _ in 0..random.below(4) {
                for on in [true, false] {
                    switch(&mut sides, &source.org, on);
                    pause(&mut random, 500);
                }
            }
        });
        readers.iter().for_each(|reader| check(reader, &mut sides.client));
        let live = |reader: &Reader| (reader.events(Some(Order::Stream)).len(), reader.events(None).len());
        println!("round {round}: {:?}", readers.iter().map(live).collect::<Vec<_>>());
        round += 1;
    }
}
