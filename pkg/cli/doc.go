// Package cli is what the administrator types: clmgr with PowerHA's grammar, and the tools by their own names (clRGinfo, clRGmove,
// cltopinfo, cllsif, clshowres, clshowsrv, cldump, cldisp, clverify, clsnapshot, lscluster), all in one binary that looks at the name
// it was called by.
//
// It talks to the daemon on this machine through package client and decides nothing about the cluster. Classes and attributes
// come from package cluster's one table. It never says that something is done before the change is committed and its effect
// is seen; when time is up it names what is missing. It does not promise that an effect, once seen, lasts.
//
// The exit statuses are those of Status; help text, usage, completion, manual pages and the
// reference page are made from the tables that the parser uses.
package cli
