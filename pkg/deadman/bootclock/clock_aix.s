#include "textflag.h"

// As in golang.org/x/sys/unix: system calls of AIX are implemented in the runtime.
TEXT ·syscall6(SB),NOSPLIT,$0-88
	JMP	syscall·syscall6(SB)
