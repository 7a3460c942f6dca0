# shellcheck shell=bash disable=SC2034
# The Debian packages that building, testing and demonstrating need: the one list that all scripts share.
# Sourced; defines one array for each set. A later set is used together with "build".

packages_build=(
  g++ meson ninja-build pkg-config ccache binutils
  libfmt-dev libexpected-dev nlohmann-json3-dev libcli11-dev  # formatting, Result, documents, options
  liburing-dev                                                # asynchronous disks
  libzydis-dev                                                # decodes instructions that KVM cannot finish
  libnbd-dev                                                  # disks at NBD servers, loaded when asked for
  libslirp-dev                                                # user-mode networking, loaded when it is asked for
  libdw-dev                                                   # debug information of kernels, loaded when it is asked for
  zlib1g-dev libbz2-dev liblzma-dev liblzo2-dev liblz4-dev libzstd-dev  # payloads of kernel images
)

packages_test=(
  libgtest-dev libgmock-dev libbenchmark-dev
  python3 python3-pytest  # tests of style and of whole guests; the bindings' plugin for pytest
  acpica-tools     # iasl checks our ACPI tables
  iproute2 util-linux  # network namespaces and devices for the tests
  e2fsprogs        # file systems on disks: made and checked
  mmdebstrap       # a root file system on one
  nbdkit           # an NBD server
  qemu-utils qemu-system-common  # qemu-storage-daemon and virtiofsd: peers of vhost-user devices
  passt procps     # a network translator in a process of its own, and a look at it
  bzip2 lz4 lzop xz-utils zstd  # make payloads of every format for the loader's tests
  gdb              # connects to the gdb server
  clang            # the second compiler: the library must compile with it, too
)

# Building a guest kernel from source.
packages_kernel=(
  linux-source-6.1 gcc make flex bison bc libelf-dev lz4 xz-utils kmod cpio
  dwarves  # pahole, for a kernel with debug information
)

# An initramfs, and Debian's own kernel (apt-get download, dpkg-deb).
packages_guest=(
  busybox-static python3 ca-certificates
)
