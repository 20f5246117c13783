/* Linked to tests whose subject is another process: what they keep until they end is not looked at. The programs that
 * they start look at their own. */
__attribute__((visibility("default"))) int __lsan_is_turned_off(void);

int __lsan_is_turned_off(void) { return 1; }
