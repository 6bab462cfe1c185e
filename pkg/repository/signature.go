package repository

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// signatures are what other owners of a disk write near its front. Offsets are in bytes.
var signatures = []struct {
	off  int
	text string
	what string
}{
	{0, "XFSB", "an XFS file system"},
	{0, "hsqs", "a squashfs image"},
	{0, "LUKS\xba\xbe", "a LUKS container"},
	{0, "\xeb\x52\x90NTFS", "an NTFS file system"},
	{0, "\xc9\xc2\xd4\xc1", "an AIX physical volume (IPL record)"},
	{512, "LABELONE", "an LVM physical volume"},
	{0, "LABELONE", "an LVM physical volume"},
	{1024, "LABELONE", "an LVM physical volume"},
	{1536, "LABELONE", "an LVM physical volume"},
	{3584, "_LVM", "an AIX LVM physical volume"},
	{512, "EFI PART", "a GPT partition table"},
	{4096, "EFI PART", "a GPT partition table"},
	{1080, "\x53\xef", "an ext2, ext3 or ext4 file system"},
	{4096 - 10, "SWAPSPACE2", "swap space"},
	{65536 - 10, "SWAPSPACE2", "swap space"},
	{4096 - 10, "SWAP-SPACE", "swap space"},
	{65536 + 64, "_BHRfS_M", "a btrfs file system"},
	{0, "SBD_SBD_", "an SBD device"},
	{4096, "\xfc\x4e\x2b\xa9", "a Linux MD array member"},
	{0, "\xfc\x4e\x2b\xa9", "a Linux MD array member"},
	{0, "bcachefs", "a bcachefs file system"},
	{0x10000, "\x01\x16\x19\x70", "a GFS2 file system"},
	{0, "OCFSV2", "an OCFS2 file system"},
	{32769, "CD001", "an ISO 9660 image"},
	{82, "FAT32   ", "a FAT file system"},
	{54, "FAT16   ", "a FAT file system"},
	{54, "FAT12   ", "a FAT file system"},
	{0x400, "\x10\x20\xf5\xf2", "an F2FS file system"},
	{0x8000, "JFS1", "a JFS file system"},
	{0, "ORCLDISK", "an Oracle ASM disk"},
	{32, "ORCLDISK", "an Oracle ASM disk"},
	{65536 + 52, "ReIsEr", "a ReiserFS file system"},
}

// findSignature names what lies on the device, or gives "" for a device that shows nothing. It knows the usual owners, not all.
func findSignature(dev Device, size int64) (string, error) {
	front := alignedBlocks(33) // over 128 KiB
	if err := readBlocks(dev, front, 0); err != nil {
		return "", err
	}
	back := alignedBlocks(16) // the last 64 KiB: GPT's copy, MD 0.90 and 1.0, and the copy of our own format block
	last := size/BlockSize - 16
	if err := readBlocks(dev, back, last); err != nil {
		return "", err
	}
	for _, b := range [][]byte{front[:BlockSize], back[15*BlockSize:]} {
		if f, err := parseFrame(b); err == nil && f.kind == kindFormat || [4]byte(b[:4]) == magic {
			var cluster UUID
			copy(cluster[:], b[8:24])
			return fmt.Sprintf("the repository volume of cluster %v", cluster), nil
		}
	}
	for _, s := range signatures {
		if bytes.Equal(front[s.off:s.off+len(s.text)], []byte(s.text)) {
			return s.what, nil
		}
	}
	for off := 0; off+8 <= len(back); off += 512 {
		if bytes.Equal(back[off:off+8], []byte("EFI PART")) {
			return "the copy of a GPT partition table", nil
		}
		if binary.LittleEndian.Uint32(back[off:]) == 0xa92b4efc || binary.BigEndian.Uint32(back[off:]) == 0xa92b4efc {
			return "a Linux MD array member", nil
		}
	}
	if front[510] == 0x55 && front[511] == 0xaa {
		return "a partition table or boot record", nil
	}
	return "", nil
}
