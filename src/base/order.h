/*
 * For ThreadSanitizer alone: order between threads of this process that another process makes.
 *
 * A thread puts a record into memory that another process reads; that one then tells a second thread of ours. What the first did before is
 * done when the second hears of it, but ThreadSanitizer sees one process only: for it nothing joins the two. So whoever tells the other side
 * something releases an address, and whoever hears from it acquires the same one; this is how ThreadSanitizer itself takes sockets and pipes.
 * It orders a little more than is true (all that was told before, not only what the answer came from), and nothing between threads of ours
 * that do not talk to the other side. In an ordinary build nothing is left of it.
 */
#ifndef FW_BASE_ORDER_H
#define FW_BASE_ORDER_H

#ifdef __SANITIZE_THREAD__
void __tsan_acquire(void *address); /* of the compiler's run-time library */
void __tsan_release(void *address);
#endif

/* Before another process is told something; `through` is any address that stands for it. */
static inline void
fw_order_told(const void *through)
{
#ifdef __SANITIZE_THREAD__
	__tsan_release((void *)(unsigned long)through);
#else
	(void)through;
#endif
}

/* After it was heard. */
static inline void
fw_order_heard(const void *through)
{
#ifdef __SANITIZE_THREAD__
	__tsan_acquire((void *)(unsigned long)through);
#else
	(void)through;
#endif
}

#endif
