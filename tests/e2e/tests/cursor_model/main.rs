//! Random interleavings of writers, purges, changes of tiers and readers, one step after the other on many
//! connections. What each reader gets is held against a model in memory, fetch by fetch.

mod model;
mod reader;
mod scene;
mod sight;
mod storage;

use std::time::Instant;

use tailstream_e2e::mirror::make_chunks;
use tailstream_e2e::server::PRELOAD;
use tailstream_e2e::{Database, Random, Server, budget};

use scene::{Scene, Seen};

const STEPS: usize = 150;

#[test]
fn every_reader_gets_what_the_model_says() {
    let random = Random::new("cursor model");
    let server = Server::shared_with("cursor-model", |builder| {
        builder
            .preload(&PRELOAD)
            // Nothing here may have to wait for another step.
            .setting("statement_timeout", "20s")
            .setting("tailstream.databases", "model")
    });
    let until = Instant::now() + budget(15.0);
    let (mut scenes, mut events, mut gaps) = (0, 0, 0);
    while Instant::now() < until || scenes < 3 {
        let database = Database::new(&server, "model");
        make_chunks(&mut database.connect());
        // Every scene leaves chunks, and what plans over thousands of them is slow.
        for _ in 0..20 {
            println!("scene {scenes}");
            let seen = play(Scene::new(&database, random.fork(scenes), scenes));
            (scenes, events, gaps) = (scenes + 1, events + seen.events, gaps + seen.gaps);
            if Instant::now() > until {
                break;
            }
        }
    }
    println!("{scenes} scenes, {events} events consumed, {gaps} gaps");
    assert!(events > 300 && gaps > 3, "hardly anything happened");
}

fn play(mut scene: Scene<'_>) -> Seen {
    for _ in 0..STEPS {
        scene.step();
    }
    scene.finish()
}
