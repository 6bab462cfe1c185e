// Package ocf runs applications by agents: OCF resource agents as they are published, and resource types that an administrator
// makes in the same manner (a directory with a manifest and scripts).
//
// It reads an agent's meta-data for its parameters, its actions and the times they ask for, calls its actions with the
// environment that the OCF resource agent API describes, and maps its exit statuses. It believes an agent's monitor, and
// nothing that was not asked of it: after a start and after a stop the monitor is asked whether it was so. It promises no more
// than the agent keeps; an agent whose monitor lies cannot be told from one that does not. Promotable agents are refused.
package ocf
