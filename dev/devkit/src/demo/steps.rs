//! The demo's story, step by step.

use std::time::Duration;

use anyhow::{Context, Result};
use tailstream_devkit::{Cluster, Redis};

use super::ingest::{BATCH, ingest};
use super::input::{Input, PREMIUM, STANDARD, UPGRADED};
use super::live::{self, Viewer};
use super::screen::{Screen, Session, grouped, show_statement};
use super::{DATABASE, PRELOAD, settings};

/// What the story is told with.
pub struct Story<'a> {
    pub screen: &'a Screen,
    pub cluster: &'a Cluster,
    pub redis: &'a Redis,
    pub input: &'a Input,
}

impl Story<'_> {
    /// Tells all of it.
    pub fn tell(&self, session: &mut Session) -> Result<()> {
        let screen = self.screen;
        create(screen, session)?;
        store(screen, session, self.cluster, self.input)?;
        watch(screen, session, self.redis)?;
        replay(screen, session)?;
        go_on(screen, session)?;
        consume(screen, session)?;
        upgrade(screen, session)?;
        purge(screen, session, self.input)?;
        keep_purging(screen, session)
    }
}

fn create(screen: &Screen, session: &mut Session) -> Result<()> {
    screen.heading("1. Create the extension");
    session.client.batch_execute("SET client_min_messages = warning").context("cannot quiet the notices")?;
    session.run("CREATE EXTENSION tailstream CASCADE;")?;
    session.run("CREATE EXTENSION pg_cron;")?;
    screen.say("Two tiers are there from the start. An org registers itself when its first events come, on tier standard:");
    session.run("SELECT name, retention FROM tailstream.tiers ORDER BY retention;")?;
    screen.say(&format!("Org {PREMIUM} pays for more:"));
    session.run(&format!("SELECT ts_set_org_tier('{PREMIUM}', 'premium');"))
}

fn store(screen: &Screen, session: &mut Session, cluster: &Cluster, input: &Input) -> Result<()> {
    screen.heading("2. Store web traffic");
    screen.say(&input.origin);
    show_statement(&format!(
        "SELECT * FROM ts_ingest('{PREMIUM}', '[{{\"created_at\": \"...\", \"method\": \"GET\", \"path\": \"/\", \"status\": 200, ...}}, ...]',\n                         on_invalid => 'quarantine');"
    ));
    screen.say(&format!("That, for each org, in batches of {}:", grouped(BATCH as u64)));
    ingest(screen, &mut cluster.connect(DATABASE)?, &input.orgs)?;
    screen.say("A batch that is sent again with its key, because the answer got lost, is stored once:");
    let again = format!(
        "SELECT batch_id, accepted, duplicate\nFROM ts_ingest('{STANDARD}', '{{\"path\": \"/pay\", \"status\": 201}}', idempotency_key => 'order-4711');"
    );
    session.run(&again)?;
    session.run(&again)
}

fn watch(screen: &Screen, session: &mut Session, redis: &Redis) -> Result<()> {
    screen.heading("3. Watch live");
    screen.say("What commits is in its org's Redis Stream, once. The server was told so:");
    let preload = ("shared_preload_libraries", PRELOAD.join(","));
    let lines = [preload].into_iter().chain(settings(redis));
    screen.output(&lines.map(|(name, value)| format!("{name} = '{value}'\n")).collect::<String>());
    screen.say("So the events of step 2 are there already:");
    live::wait_for_mirror(&mut session.client)?;
    session.run("SELECT state, backlog_events, entries_sent FROM ts_mirror_status();")?;
    let key: String = session
        .client
        .query_one("SELECT stream_key FROM ts_mirror_status($1)", &[&STANDARD])
        .context("cannot ask for a stream's key")?
        .get(0);
    screen.say("A viewer waits for what comes next:");
    screen.output(&Viewer::command(redis, &key));
    let viewer = Viewer::start(redis, &key)?;
    screen.say("Meanwhile, in another session:");
    session.run(&format!(
        "SELECT batch_id, accepted\nFROM ts_ingest('{STANDARD}', '[{{\"path\": \"/live\", \"status\": 200, \"colour\": \"blue\"}},\n\
         \x20                          {{\"path\": \"/live\", \"status\": 404}}]');"
    ))?;
    let received = viewer.received()?;
    // The entries may be there before this process has heard of its commit.
    let later = received.at.saturating_duration_since(session.answered_at);
    screen.say(&format!(
        "The viewer had them {:.1} ms after the commit was answered:",
        later.as_secs_f64() * 1000.0
    ));
    screen.output(&received.text);
    screen.say("The stream compared with the table, as anybody can at any time; tier standard keeps the newest 5,000 entries:");
    live::wait_for_mirror(&mut session.client)?;
    session.run(&format!(
        "SELECT finding, entries, first_stream_id, last_stream_id FROM ts_mirror_verify('{STANDARD}');"
    ))
}

fn replay(screen: &Screen, session: &mut Session) -> Result<()> {
    screen.heading("4. Replay");
    screen.say("The events of an org between two times, in order:");
    session.run(&format!(
        "SELECT created_at, method, path, status, response_time\n\
         FROM ts_replay('{PREMIUM}', now() - interval '1 hour', now())\nORDER BY created_at, id LIMIT 5;"
    ))?;
    screen.say("It is plain SQL, and the planner sees through it:");
    session.run(&format!(
        "SELECT status / 100 * 100 AS status, count(*), max(response_size) AS largest\n\
         FROM ts_replay('{PREMIUM}', now() - interval '24 hours', now())\nGROUP BY 1 ORDER BY 1;"
    ))?;
    screen.say(&format!(
        "Nobody reads past an org's retention, purged or not. {STANDARD} is on tier standard:"
    ));
    session.run_failing(&format!("SELECT * FROM ts_replay('{STANDARD}', now() - interval '1 day', now());"))
}

fn go_on(screen: &Screen, session: &mut Session) -> Result<()> {
    screen.heading("5. Go on where you left off");
    screen.say("A replay comes in pages as well. Each row has a token:");
    session.run(&format!(
        "SELECT created_at, path, cursor FROM ts_replay_page('{PREMIUM}', NULL, NULL, page_size => 2);"
    ))?;
    let token: String = session
        .client
        .query("SELECT cursor FROM ts_replay_page($1, NULL, NULL, page_size => 2)", &[&PREMIUM])
        .context("cannot ask for a page")?
        .last()
        .context("a page without rows")?
        .get(0);
    screen.say("It goes on right behind its row, on any connection and at any time:");
    session.run(&format!(
        "SELECT created_at, path, kind\nFROM ts_replay_page('{PREMIUM}', NULL, NULL, after => '{token}', page_size => 2);"
    ))
}

fn consume(screen: &Screen, session: &mut Session) -> Result<()> {
    screen.heading("6. Consume");
    screen.say("A durable cursor keeps a consumer's place under a name. It follows the order of commits, so it skips nothing:");
    session.run(&format!("SELECT ts_cursor_create('billing', '{PREMIUM}');"))?;
    session.run("SELECT id, created_at, path FROM ts_cursor_fetch('billing', 2);")?;
    let token: String = session
        .client
        .query("SELECT cursor FROM ts_cursor_fetch('billing', 2)", &[])
        .context("cannot fetch")?
        .last()
        .context("a fetch without rows")?
        .get(0);
    screen.say("What is not acknowledged comes again. With the last row's token both are done:");
    session.run(&format!("SELECT ts_cursor_ack('billing', '{token}');"))?;
    screen.say("Or the place moves with the results, in one transaction: each event is used once, whatever fails in between.");
    session.run("CREATE TABLE billed (org text, events bigint, bytes numeric);")?;
    session.run(
        "INSERT INTO billed\nSELECT org_id, count(*), sum(response_size) FROM ts_cursor_fetch('billing', 5000, auto_ack => true)\n\
         WHERE kind = 'event' GROUP BY org_id\nRETURNING *;",
    )?;
    session.run("SELECT name, order_by, lag_events, lag FROM tailstream.cursors;")
}

fn upgrade(screen: &Screen, session: &mut Session) -> Result<()> {
    screen.heading("7. Upgrade an org");
    screen.say("From now on it keeps what it has for longer; nothing is moved:");
    session.run(&format!("SELECT ts_set_org_tier('{UPGRADED}', 'premium');"))?;
    session.run(&format!("SELECT * FROM ts_replay_window('{UPGRADED}');"))
}

fn purge(screen: &Screen, session: &mut Session, input: &Input) -> Result<()> {
    screen.heading("8. Expire by tier");
    screen.say("To have something expired without waiting, tier standard is cut to one hour. What is older is hidden at once:");
    let counts = format!(
        "SELECT org, (SELECT count(*) FROM tailstream.log_events WHERE org_id = org) AS readable\n\
         FROM unnest('{{{PREMIUM},{UPGRADED},{STANDARD}}}'::text[]) AS org;"
    );
    session.run(&counts)?;
    session.run("SELECT ts_alter_tier('standard', retention => '1 hour');")?;
    session.run(&counts)?;
    if !input.reaches_back {
        screen.say(
            "This log holds no hour that is over for tier standard, so what follows has little to show.",
        );
    }
    screen.say(
        "What would a purge do? Every hour of a tier is a chunk of its own, and whole chunks are dropped:",
    );
    session.run("SELECT * FROM ts_retention_preview();")?;
    screen.say(&format!(
        "The purge itself. What {UPGRADED} stored before its upgrade is rescued into its new tier first, one chunk a call\n\
         so that nobody waits for long; the job that runs every minute takes the others:"
    ));
    session.run("SELECT * FROM ts_apply_retention();")?;
    session.run("SELECT * FROM ts_apply_retention();")?;
    screen.say("What could be read before can be read now, but for what turned an hour old in between:");
    session.run(&counts)?;
    screen.say("Tier standard gets its three hours back:");
    session.run("SELECT ts_alter_tier('standard', retention => '3 hours');")
}

fn keep_purging(screen: &Screen, session: &mut Session) -> Result<()> {
    screen.heading("9. From now on, by itself");
    screen.say("pg_cron purges every minute:");
    session.run("SELECT ts_schedule_retention();")?;
    session.run("SELECT * FROM ts_health();")
}

/// How to go on by hand.
pub fn farewell(screen: &Screen, took: Duration) {
    screen.heading("Go on by hand");
    screen.say("Both servers keep running. 'make psql' opens a shell on this database; try:");
    show_statement(&format!(
        "SELECT * FROM ts_ingest('{STANDARD}', '{{\"path\": \"/hello\", \"status\": 200, \"colour\": \"blue\"}}');\n\
         SELECT ts_event(e) FROM ts_replay('{STANDARD}', now() - interval '5 minutes', now()) e;\n\
         SELECT * FROM ts_ingest('{STANDARD}', '[{{\"status\": \"many\"}}]');\n\
         SELECT path, kind FROM ts_cursor_fetch('billing', 10, timeout => '30 s', auto_ack => true);\n\
         SELECT play_at, path FROM ts_replay_schedule('{PREMIUM}', now() - interval '1 hour', now(), speed => 60) LIMIT 20;\n\
         SELECT * FROM ts_org('{UPGRADED}');\n\
         SELECT * FROM ts_mirror_status('{STANDARD}');"
    ));
    screen.say("'make stop' stops the servers, 'make clean' removes them, 'make demo LOG=your-access.log' shows your own traffic.");
    screen.say(&format!("This took {:.1} s.", took.as_secs_f64()));
}
