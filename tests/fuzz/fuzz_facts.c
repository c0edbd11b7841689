/* A fact document as somebody sends it: read, judged, reported in every format, redacted and judged again. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "doctor/report.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
judge(const struct fw_json *facts, FILE *out)
{
	struct dr_judgement judgement;

	if (!dr_judge(&judgement, dr_rules_builtin(), facts, NULL))
		return;
	dr_report_text(&judgement, out);
	dr_report_json(&judgement, out);
	dr_report_html(&judgement, out);
	dr_report_nagios(&judgement, out);
	dr_report_npd(&judgement, out);
	dr_report_slurm(&judgement, out);
	dr_report_prometheus(&judgement, out);
	dr_judgement_free(&judgement);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static FILE *out;
	char error[400] = "";

	if (!out && !(out = fopen("/dev/null", "w")))
		abort();
	struct fw_json *facts = dr_document_parse((const char *)data, size, "input", error, sizeof(error));
	if (!facts) {
		if (!error[0]) /* a refusal says why */
			abort();
		return 0;
	}
	judge(facts, out);
	if (dr_redact(facts))
		judge(facts, out);
	fw_json_free(facts);
	return 0;
}
