//! The order in which the SQL files make up the extension's script.

use pgrx::extension_sql_file;

extension_sql_file!("../sql/schema/roles.sql", name = "roles", bootstrap);
extension_sql_file!("../sql/schema/storage.sql", name = "storage", requires = ["roles"]);
extension_sql_file!("../sql/schema/session.sql", name = "session", requires = ["storage"]);
extension_sql_file!("../sql/schema/views.sql", name = "views", requires = ["session"]);
extension_sql_file!("../sql/schema/ingest.sql", name = "ingest", requires = ["views"]);
extension_sql_file!("../sql/schema/tiers.sql", name = "tiers", requires = ["ingest"]);
extension_sql_file!("../sql/schema/replay.sql", name = "replay", requires = ["tiers"]);
extension_sql_file!("../sql/schema/sequencer.sql", name = "sequencer", requires = ["replay"]);
extension_sql_file!("../sql/schema/play.sql", name = "play", requires = ["sequencer"]);
extension_sql_file!("../sql/schema/cursors.sql", name = "cursors", requires = ["play"]);
extension_sql_file!("../sql/schema/mirror.sql", name = "mirror", requires = ["cursors"]);
extension_sql_file!("../sql/schema/metrics.sql", name = "metrics", requires = ["mirror"]);
extension_sql_file!("../sql/schema/chunks.sql", name = "chunks", requires = ["metrics"]);
extension_sql_file!("../sql/schema/rescue.sql", name = "rescue", requires = ["chunks"]);
extension_sql_file!("../sql/schema/purge.sql", name = "purge", requires = ["rescue"]);
extension_sql_file!("../sql/schema/erase.sql", name = "erase", requires = ["purge"]);
extension_sql_file!("../sql/schema/registrations.sql", name = "registrations", requires = ["erase"]);
extension_sql_file!("../sql/schema/schedule.sql", name = "schedule", requires = ["registrations"]);
extension_sql_file!("../sql/schema/health.sql", name = "health", requires = ["schedule"]);
extension_sql_file!("../sql/schema/grants.sql", name = "grants", requires = ["health"], finalize);
