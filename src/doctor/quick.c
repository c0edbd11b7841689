/* The doctor's quick check for other parts of farwarp: does the local GPU work? */
#include <stdio.h>

#include "doctor/doctor.h"
#include "doctor/rules.h"

void
dr_quick_check(struct dr_quick *quick, double deadline)
{
	const struct dr_options options = { .root = "", .deadline = deadline, .quick = true, .load = true };
	const struct dr_rules *rules = dr_rules_builtin();
	struct fw_json *facts = rules ? dr_probe(&options) : NULL;
	struct dr_judgement judgement;

	*quick = (struct dr_quick){ .id = "UNKNOWN", .title = "the machine could not be looked at" };
	if (!facts)
		return;
	if (dr_judge(&judgement, rules, facts, NULL)) {
		/* A full disk is a fault as well; what counts here is whether the GPU itself answers. */
		const struct dr_outcome *ok = dr_outcome_of(&judgement, "OK");
		quick->works = ok && ok->kind == DR_FIRED;
		quick->fault = judgement.verdict->rule->state == DR_FAULT;
		dr_who_text(judgement.verdict->rule->who, quick->who, sizeof(quick->who));
		snprintf(quick->id, sizeof(quick->id), "%s", judgement.verdict->rule->id);
		snprintf(quick->title, sizeof(quick->title), "%s", judgement.verdict->rule->title);
		snprintf(quick->gpu, sizeof(quick->gpu), "%s", dr_get_text(facts, "driver.gpus[0].name", ""));
		dr_judgement_free(&judgement);
	}
	fw_json_free(facts);
}
