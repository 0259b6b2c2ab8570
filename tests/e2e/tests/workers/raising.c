/* Another extension's hook, which raises an error for queries with a mark in them: with all that an error can have. */
#include "postgres.h"

#include "fmgr.h"
#include "nodes/queryjumble.h"
#include "parser/analyze.h"

PG_MODULE_MAGIC;

static post_parse_analyze_hook_type previous = NULL;

static void
raise_if_marked(ParseState *state, Query *query, JumbleState *jumble)
{
	const char *mark = state->p_sourcetext ? strstr(state->p_sourcetext, "/* raise */") : NULL;

	if (previous)
		previous(state, query, jumble);
	if (mark != NULL && query->commandType == CMD_SELECT)
		ereport(ERROR,
				(errcode(MAKE_SQLSTATE('Z', 'Z', '0', '4', '2')),
				 errmsg("raised in a hook"), errdetail("the detail"), errhint("the hint"), errcontext("the context"),
				 errposition((int) (mark - state->p_sourcetext) + 1),
				 err_generic_string(PG_DIAG_COLUMN_NAME, "a column"),
				 err_generic_string(PG_DIAG_CONSTRAINT_NAME, "a constraint")));
}

void
_PG_init(void)
{
	previous = post_parse_analyze_hook;
	post_parse_analyze_hook = raise_if_marked;
}
