/*
 * How many times longer a test may take than in an ordinary build. For time limits only: what is measured is not scaled.
 */
#ifndef TESTS_SLOW_H
#define TESTS_SLOW_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TIMES_SLOWER 10
#else
#define TIMES_SLOWER 1
#endif

#endif
