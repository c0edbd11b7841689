/*
 * Judges: every rule is evaluated, then one is the verdict.
 *
 * A rule fires when all its needs are true and no exclusion is; an exclusion that could not be seen lowers its confidence. With a need
 * that could not be seen it is a possible cause. The verdict is, of what fired: the lowest layer's fault, rules named by "after" first;
 * a fallback, which names a symptom and no cause, only where no cause fired, and behind a possible cause of which more is seen than
 * missing; else what says ok; else "could not tell". A rule that says why nothing can be told comes before a symptom.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/rules.h"

/* Evaluates a rule. false: out of memory. */
static bool
evaluate_rule(struct dr_judgement *j, struct dr_outcome *outcome, const struct dr_drop *drop)
{
	const struct dr_rule *rule = outcome->rule;
	bool dropped_here = drop && strcmp(drop->id, rule->id) == 0;

	outcome->kind = DR_FIRED;
	outcome->confidence = rule->confidence;
	outcome->decided_by = -1;
	outcome->finding = fw_arena_alloc(&j->arena, (size_t)rule->conditions * sizeof(*outcome->finding) + 1);
	if (!outcome->finding)
		return false;
	for (int i = 0; i < rule->conditions; i++) {
		const struct dr_condition *condition = &rule->condition[i];
		struct dr_finding *finding = &outcome->finding[i];
		if (dropped_here && drop->condition == i)
			continue;
		dr_evaluate(condition->expr, j->facts, &j->arena, finding);
		if (finding->truth == DR_UNSEEN) {
			if (condition->excludes)
				outcome->confidence = outcome->confidence < 'C' ? (char)(outcome->confidence + 1) : 'C';
			else
				outcome->unseen++;
		} else if ((finding->truth == DR_TRUE) == condition->excludes) {
			outcome->kind = DR_RULED_OUT;
			outcome->decided_by = i;
			return true;
		} else if (!condition->excludes) {
			outcome->seen++;
		}
	}
	if (outcome->unseen)
		outcome->kind = DR_POSSIBLE;
	return true;
}

/* Whether a rule that this one gives way to is a candidate too. */
static bool
gives_way(const struct dr_judgement *j, const struct dr_outcome *outcome, const struct dr_drop *drop)
{
	for (int i = 0; i < outcome->rule->after_count; i++) {
		const struct dr_outcome *other = dr_outcome_of(j, outcome->rule->after[i]);
		if (drop && drop->after == i && strcmp(drop->id, outcome->rule->id) == 0)
			continue;
		if (other && other->kind == DR_FIRED && !other->rule->fallback)
			return true;
	}
	return false;
}

/* The first of a state in layer order that fired; `fallback` chooses among rules that name a symptom only. */
static const struct dr_outcome *
first_fired(const struct dr_judgement *j, enum dr_state state, bool fallback, const struct dr_drop *drop)
{
	const struct dr_outcome *best = NULL;

	for (int pass = 0; pass < 2 && !best; pass++) /* the second: in a circle of "after" somebody must be first */
		for (int i = 0; i < j->rules->count; i++) {
			const struct dr_outcome *o = &j->outcome[i];
			if (o->kind != DR_FIRED || o->rule->state != state || o->rule->fallback != fallback || (!pass && gives_way(j, o, drop)))
				continue;
			if (!best || o->rule->layer < best->rule->layer)
				best = o;
		}
	return best;
}

/* The fault of which the most is seen, if that is more than is missing. */
static const struct dr_outcome *
likeliest(const struct dr_judgement *j)
{
	const struct dr_outcome *best = NULL;

	for (int i = 0; i < j->rules->count; i++) {
		const struct dr_outcome *o = &j->outcome[i];
		if (o->kind != DR_POSSIBLE || o->rule->state != DR_FAULT || o->rule->fallback || o->seen < 2 || o->seen <= o->unseen)
			continue;
		if (!best || o->seen * (best->seen + best->unseen) > best->seen * (o->seen + o->unseen) ||
		    (o->seen * (best->seen + best->unseen) == best->seen * (o->seen + o->unseen) && o->rule->layer < best->rule->layer))
			best = o;
	}
	return best;
}

static void
choose(struct dr_judgement *j, const struct dr_drop *drop)
{
	j->verdict = first_fired(j, DR_FAULT, false, drop);
	if (j->verdict)
		return;
	const struct dr_outcome *symptom = first_fired(j, DR_FAULT, true, drop), *unsure = first_fired(j, DR_UNKNOWN, false, drop);
	if (symptom && unsure) { /* it is known why nothing can be said of the cause */
		j->verdict = unsure;
		return;
	}
	if (symptom) {
		const struct dr_outcome *cause = likeliest(j);
		j->possible = cause != NULL;
		j->verdict = cause ? cause : symptom;
		return;
	}
	j->verdict = first_fired(j, DR_OK, false, drop);
	if (!j->verdict)
		j->verdict = unsure ? unsure : first_fired(j, DR_UNKNOWN, true, drop);
}

static const char *
evidence_text(struct dr_judgement *j, const struct dr_finding *finding)
{
	char text[300] = "";
	size_t used = 0;

	for (int i = 0; i < finding->count && used < sizeof(text) - 1; i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s: %s", used ? ", " : "", finding->evidence[i].path,
		                         finding->evidence[i].value);
	const char *kept = fw_arena_strndup(&j->arena, text, strlen(text));
	return kept ? kept : "";
}

/* A layer that does not work above one with a fault says nothing of itself. */
static const char *
after_the_fault(struct dr_judgement *j, const struct dr_finding *finding)
{
	char text[400];

	snprintf(text, sizeof(text), "%s: look again when %s is mended", evidence_text(j, finding), j->verdict->rule->id);
	const char *kept = fw_arena_strndup(&j->arena, text, strlen(text));
	return kept ? kept : "";
}

static void
judge_layer(struct dr_judgement *j, enum dr_layer layer)
{
	const struct dr_layer_rule *rule = &j->rules->layer[layer];
	struct dr_finding ok = { .truth = DR_UNSEEN }, na = { .truth = DR_UNSEEN };
	struct dr_layer_state *state = &j->layer[layer];

	for (int i = 0; i < j->rules->count; i++) {
		const struct dr_outcome *o = &j->outcome[i];
		if (o->kind == DR_FIRED && o->rule->layer == layer && o->rule->state == DR_FAULT && (!o->rule->fallback || o == j->verdict)) {
			*state = (struct dr_layer_state){ "fault", o->rule->title };
			return;
		}
	}
	if (rule->ok.expr)
		dr_evaluate(rule->ok.expr, j->facts, &j->arena, &ok);
	if (rule->na.expr)
		dr_evaluate(rule->na.expr, j->facts, &j->arena, &na);
	if (ok.truth == DR_TRUE)
		*state = (struct dr_layer_state){ "ok", evidence_text(j, &ok) };
	else if (na.truth == DR_TRUE)
		*state = (struct dr_layer_state){ "not applicable", evidence_text(j, &na) };
	else if (ok.truth == DR_FALSE && j->verdict && j->verdict->rule->state == DR_FAULT && j->verdict->rule->layer <= layer)
		*state = (struct dr_layer_state){ "unknown", after_the_fault(j, &ok) };
	else
		*state = (struct dr_layer_state){ "unknown", evidence_text(j, &ok) };
}

bool
dr_judge(struct dr_judgement *j, const struct dr_rules *rules, const struct fw_json *facts, const struct dr_drop *drop)
{
	*j = (struct dr_judgement){ .facts = facts, .rules = rules };
	j->outcome = fw_arena_alloc(&j->arena, (size_t)rules->count * sizeof(*j->outcome) + 1);
	if (!j->outcome)
		return false;
	for (int i = 0; i < rules->count; i++) {
		j->outcome[i].rule = &rules->rule[i];
		if (!evaluate_rule(j, &j->outcome[i], drop)) {
			dr_judgement_free(j);
			return false;
		}
	}
	choose(j, drop);
	for (int layer = 0; layer < DR_LAYER_COUNT; layer++)
		judge_layer(j, (enum dr_layer)layer);
	return true;
}

void
dr_judgement_free(struct dr_judgement *j)
{
	fw_arena_free(&j->arena);
	j->outcome = NULL;
	j->verdict = NULL;
}

const struct dr_outcome *
dr_outcome_of(const struct dr_judgement *j, const char *id)
{
	const struct dr_rule *rule = dr_rule_find(j->rules, id);
	return rule ? &j->outcome[rule - j->rules->rule] : NULL;
}

int
dr_exit_code(const struct dr_judgement *j)
{
	if (!j->verdict)
		return 2;
	return j->verdict->rule->state == DR_OK ? 0 : j->verdict->rule->state == DR_FAULT ? 1 : 2;
}
