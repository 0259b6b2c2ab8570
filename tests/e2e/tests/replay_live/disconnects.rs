//! Readers that leave at any moment and come back with what they kept.

use std::time::Instant;

use tailstream_e2e::{Random, budget};

use crate::account::check;
use crate::client::Order;
use crate::crowd::{pause, work};
use crate::reader::Reader;
use crate::scene;

#[test]
fn a_reader_may_leave_between_any_two_events() {
    let random = Random::new("disconnects");
    let (_database, mut sides, source) = scene("left");
    sides.client.batch_execute("SELECT ts_create_tier('small', '3 hours', 500)").expect("a tier");
    let until = Instant::now() + budget(6.0);
    let mut round = 0;
    while Instant::now() < until || round < 2 {
        let source = source.of(&format!("acme-{round}"));
        sides.client.execute("SELECT ts_set_org_tier($1, 'small')", &[&source.org]).expect("an org");
        let mut random = random.fork(round);
        let readers = work(&source, &random.clone(), come_and_go, || pause(&mut random, 2_500));
        readers.iter().for_each(|reader| check(reader, &mut sides.client));
        let again = |reader: &Reader| reader.events(Some(Order::Stream)).len();
        println!(
            "round {round}: {:?} in pages after the history",
            readers.iter().map(again).collect::<Vec<_>>()
        );
        round += 1;
    }
}

/// A step of which not all is taken, with pages of another size, after a while.
pub fn come_and_go(reader: &mut Reader, random: &mut Random) {
    if random.chance(5) {
        reader.source.pace.page_size = random.between(1, 300) as i32;
        reader.leave();
    }
    if random.chance(5) {
        pause(random, 300);
    }
    if random.chance(15) { reader.step_of(random.below(100)) } else { reader.step() }
}
