//! Redirects the queries of a session that is bound to an org from the plain view to the security barrier view.
//!
//! `tailstream.log_events` streams because the planner inlines it. For the same reason a cheap function in the WHERE
//! clause of a bound session could see rows before the view's own filter is applied. The hook therefore replaces the view
//! by `tailstream.own_log_events`, a `security_barrier` view with the same columns, right after parse analysis. The text
//! of an inlined `ts_replay` passes through the hook too. A query that the hook misses (a user's own view over
//! log_events) reaches `session_unbound()`, which refuses it.

use core::ffi::c_void;

use pgrx::{PgList, is_a, pg_guard, pg_sys};

use super::org_scope;

static mut PREVIOUS: pg_sys::post_parse_analyze_hook_type = None;

/// The oids of the two views, if both exist.
#[derive(Clone, Copy)]
struct Views {
    plain: pg_sys::Oid,
    own: pg_sys::Oid,
}

/// Installs the hook. Called once, when the library is loaded.
pub fn install() {
    // SAFETY: PostgreSQL's hook is a plain variable of a single-threaded process.
    unsafe {
        PREVIOUS = pg_sys::post_parse_analyze_hook;
        pg_sys::post_parse_analyze_hook = Some(analyzed);
    }
}

/// Runs for every query. An error of the previous hook unwinds through this frame, so it must not own anything that needs to be
/// dropped. The work of this module is in a function with a guard.
unsafe extern "C-unwind" fn analyzed(
    parse_state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    // SAFETY: passes PostgreSQL's arguments on unchanged.
    unsafe {
        if let Some(previous) = PREVIOUS {
            previous(parse_state, query, jumble);
        }
        bar(query);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn bar(query: *mut pg_sys::Query) {
    if let Some(mut views) = views_of_bound_session() {
        // SAFETY: the query that was just analyzed.
        unsafe { redirect(query, &mut views) };
    }
}

fn views_of_bound_session() -> Option<Views> {
    // SAFETY: catalog look-ups inside a transaction that is in progress.
    unsafe {
        if !pg_sys::IsTransactionState() || org_scope::bound_org().is_none() {
            return None;
        }
        let schema = pg_sys::get_namespace_oid(c"tailstream".as_ptr(), true);
        let plain = pg_sys::get_relname_relid(c"log_events".as_ptr(), schema);
        let own = pg_sys::get_relname_relid(c"own_log_events".as_ptr(), schema);
        (plain != pg_sys::InvalidOid && own != pg_sys::InvalidOid).then_some(Views { plain, own })
    }
}

/// Redirects one query level and all below it.
///
/// # Safety
/// `query` must be an analyzed query tree that is not used elsewhere yet.
unsafe fn redirect(query: *mut pg_sys::Query, views: &mut Views) {
    // SAFETY: the caller's promise; the tree is only walked as PostgreSQL's walkers do.
    unsafe {
        if (*query).commandType == pg_sys::CmdType::CMD_UTILITY {
            if let Some(inner) = contained_query((*query).utilityStmt) {
                redirect(inner, views);
            }
            return;
        }
        let tables = PgList::<pg_sys::RangeTblEntry>::from_pg((*query).rtable);
        for (index, entry) in tables.iter_ptr().enumerate() {
            let written = (*query).resultRelation == index as i32 + 1;
            if (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION && (*entry).relid == views.plain && !written
            {
                replace(query, entry, views.own);
            }
        }
        walk_query(query, (views as *mut Views).cast());
    }
}

/// EXPLAIN, DECLARE CURSOR and CREATE TABLE AS contain a query for which no hook is called.
unsafe fn contained_query(statement: *mut pg_sys::Node) -> Option<*mut pg_sys::Query> {
    // SAFETY: the tag says what the node is.
    let inner = unsafe {
        if is_a(statement, pg_sys::NodeTag::T_ExplainStmt) {
            (*statement.cast::<pg_sys::ExplainStmt>()).query
        } else if is_a(statement, pg_sys::NodeTag::T_DeclareCursorStmt) {
            (*statement.cast::<pg_sys::DeclareCursorStmt>()).query
        } else if is_a(statement, pg_sys::NodeTag::T_CreateTableAsStmt) {
            (*statement.cast::<pg_sys::CreateTableAsStmt>()).query
        } else {
            return None;
        }
    };
    // SAFETY: as above; is_a takes any node.
    (!inner.is_null() && unsafe { is_a(inner, pg_sys::NodeTag::T_Query) }).then_some(inner.cast())
}

unsafe fn replace(query: *mut pg_sys::Query, entry: *mut pg_sys::RangeTblEntry, own: pg_sys::Oid) {
    // SAFETY: the entry belongs to the query; its permission record is found as PostgreSQL finds it.
    unsafe {
        pg_sys::LockRelationOid(own, (*entry).rellockmode);
        #[cfg(not(feature = "pg15"))]
        if (*entry).perminfoindex > 0 {
            (*pg_sys::getRTEPermissionInfo((*query).rteperminfos, entry)).relid = own;
        }
        #[cfg(feature = "pg15")]
        let _ = query;
        (*entry).relid = own;
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn visit(node: *mut pg_sys::Node, views: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: the walker hands us nodes of the tree and the pointer we gave it.
    unsafe {
        if is_a(node, pg_sys::NodeTag::T_Query) {
            redirect(node.cast(), &mut *views.cast::<Views>());
            return false;
        }
        walk_expression(node, views)
    }
}

unsafe fn walk_query(query: *mut pg_sys::Query, views: *mut c_void) {
    // SAFETY: as the callers promise.
    unsafe {
        #[cfg(not(feature = "pg15"))]
        pg_sys::query_tree_walker_impl(query, Some(visit), views, 0);
        #[cfg(feature = "pg15")]
        pg_sys::query_tree_walker(query, Some(visit), views, 0);
    }
}

unsafe fn walk_expression(node: *mut pg_sys::Node, views: *mut c_void) -> bool {
    // SAFETY: as the callers promise.
    unsafe {
        #[cfg(not(feature = "pg15"))]
        return pg_sys::expression_tree_walker_impl(node, Some(visit), views);
        #[cfg(feature = "pg15")]
        return pg_sys::expression_tree_walker(node, Some(visit), views);
    }
}
