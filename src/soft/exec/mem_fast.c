/*
 * The forms of ld and st that programs spend their time in. Included by mem.c.
 */

static sx_fn
sx_pick_ld(uint32_t aux)
{
	return sx_ld_any;
}

static sx_fn
sx_pick_st(uint32_t aux)
{
	return sx_st_any;
}
