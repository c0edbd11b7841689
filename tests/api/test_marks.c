/*
 * What the table says of each call is what the software GPU does: served means a member of struct cuda_ops that is not NULL.
 */
#include "tap.h"

#include "soft/soft.h"

TEST(table_and_device_agree)
{
	struct sw_config config = { .cc = 86 };
	const struct cuda_ops *ops = NULL;

	CHECK_INT(sw_open(&config, &ops), CUDA_SUCCESS);
	CHECK(ops && ops->name && ops->primary_context);
#define MARK(call, served) \
	if ((ops->call != NULL) != served) { \
		printf("# " #call " is %s, the table says otherwise\n", ops->call ? "served" : "not served"); \
		CHECK(0); \
	}
#include "cuda_marks.inc"
}

TEST_MAIN()
