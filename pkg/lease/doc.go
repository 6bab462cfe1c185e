// Package lease holds the arithmetic by which a node may hold resources, and by which a leader may call a silent node's
// resources free: the timing inequality, the profiles, the validator that refuses unsafe timings, and the leader's book of
// grants.
//
// It promises nothing about liveness and reads no clock: every moment comes in as an Instant. All safety arithmetic of the
// house is here, so that there is one place to check.
//
// Why two nodes cannot hold one group by time alone. A node pets its watchdog only under a grant; the grant answers a request
// whose moment t_req the node's own deadman read before sending; the pet happens before t_req + A + p (an absolute timer
// kills the deadman otherwise); so the watchdog has fired by t_req + A + p + W, and R later the node has no side effect. The
// leader counts from t0, a moment on its own clock which is after every t_req that any leader can have granted: after its own
// last grant to that incarnation, and after the first commit of its own term (a quorum that confirms an older leader's term
// after that commit does not exist, because it would intersect the quorum that took the commit). Two clocks whose rates differ
// by at most Rho measure these two intervals, which gives Expiry.
package lease
