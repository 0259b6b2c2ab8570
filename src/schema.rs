//! The order in which the SQL files make up the extension's script.
//!
//! First come the functions that create each folder's tables, then `storage.sql`, which calls them, then everything else.

use pgrx::extension_sql_file;

extension_sql_file!("../sql/schema/roles.sql", name = "roles", bootstrap);
extension_sql_file!("../sql/schema/schema.sql", name = "schema", requires = ["roles"]);
extension_sql_file!("../sql/schema/tiers/tables.sql", name = "tiers_tables", requires = ["schema"]);
extension_sql_file!("../sql/schema/ingest/tables.sql", name = "ingest_tables", requires = ["tiers_tables"]);
extension_sql_file!(
    "../sql/schema/sequencer/tables.sql",
    name = "sequencer_tables",
    requires = ["ingest_tables"]
);
extension_sql_file!(
    "../sql/schema/mirror/tables.sql",
    name = "mirror_tables",
    requires = ["sequencer_tables"]
);
extension_sql_file!("../sql/schema/purge/tables.sql", name = "purge_tables", requires = ["mirror_tables"]);
extension_sql_file!("../sql/schema/replay/tables.sql", name = "replay_tables", requires = ["purge_tables"]);
extension_sql_file!(
    "../sql/schema/cursors/tables.sql",
    name = "cursors_tables",
    requires = ["replay_tables"]
);
extension_sql_file!("../sql/schema/storage.sql", name = "storage", requires = ["cursors_tables"]);
extension_sql_file!("../sql/schema/session.sql", name = "session", requires = ["storage"]);
extension_sql_file!("../sql/schema/views.sql", name = "views", requires = ["session"]);
extension_sql_file!("../sql/schema/ingest/functions.sql", name = "ingest", requires = ["views"]);
extension_sql_file!("../sql/schema/tiers/functions.sql", name = "tiers", requires = ["ingest"]);
extension_sql_file!("../sql/schema/replay/functions.sql", name = "replay", requires = ["tiers"]);
extension_sql_file!("../sql/schema/sequencer/functions.sql", name = "sequencer", requires = ["replay"]);
extension_sql_file!("../sql/schema/replay/playback.sql", name = "replay_playback", requires = ["sequencer"]);
extension_sql_file!("../sql/schema/cursors/functions.sql", name = "cursors", requires = ["replay_playback"]);
extension_sql_file!("../sql/schema/mirror/functions.sql", name = "mirror", requires = ["cursors"]);
extension_sql_file!("../sql/schema/metrics.sql", name = "metrics", requires = ["mirror"]);
extension_sql_file!("../sql/schema/chunks.sql", name = "chunks", requires = ["metrics"]);
extension_sql_file!("../sql/schema/purge/rescue.sql", name = "purge_rescue", requires = ["chunks"]);
extension_sql_file!("../sql/schema/purge/functions.sql", name = "purge", requires = ["purge_rescue"]);
extension_sql_file!("../sql/schema/erase.sql", name = "erase", requires = ["purge"]);
extension_sql_file!("../sql/schema/registrations.sql", name = "registrations", requires = ["erase"]);
extension_sql_file!(
    "../sql/schema/purge/schedule.sql",
    name = "purge_schedule",
    requires = ["registrations"]
);
extension_sql_file!("../sql/schema/health.sql", name = "health", requires = ["purge_schedule"]);
extension_sql_file!("../sql/schema/grants.sql", name = "grants", requires = ["health"], finalize);
