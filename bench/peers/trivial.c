/* A C program that does nothing until it is killed: what any process holds in memory. */
#include <unistd.h>

int main(void) { return pause(); }
