# The board's first process: its mounts and its two sshd; all of it ends when stdin does.
# Arguments: the folder of arm_root, a work folder, the line that registers qemu, the CPUs.
# /proc stays the outer machine's in here, so /proc/self/stat tells the process id that nsenter needs.
set -e
base=$1 work=$2 binfmt=$3 root=$1/root
shift 3

mount -t tmpfs tmpfs "$base/scratch"
mkdir "$base/scratch/upper" "$base/scratch/work"
mount -t overlay overlay \
  -o "lowerdir=$root,upperdir=$base/scratch/upper,workdir=$base/scratch/work" "$root"
mount -t proc proc "$root/proc"
mount --bind /sys "$root/sys"
mount --bind /dev "$root/dev"
mount -t tmpfs -o size=64k,mode=1777 tmpfs "$root/small"
mkdir "$root/frozen"
mount -t tmpfs -o ro tmpfs "$root/frozen"

# Since Linux 6.7 the handler goes with the last mount of binfmt_misc; before that it stays, as
# the package itself would have left it.
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
handler=/proc/sys/fs/binfmt_misc/qemu-aarch64 # another session may register it at the same time
[ -e $handler ] || cat "$binfmt" >/proc/sys/fs/binfmt_misc/register || [ -e $handler ]

mount -t tmpfs tmpfs /run
mkdir /run/sshd
cp "$work/authorized_keys" /run # sshd reads it as the user, who may not enter $work
mount --bind "$work/passwd" /etc/passwd
mount --bind "$work/shadow" /etc/shadow
for cpu; do
  unshare --mount sh -c '
    mount --bind "$1/$3.cpuinfo" "$2/proc/cpuinfo"
    read -r pid _ </proc/self/stat
    echo "$3 $pid"
    exec /usr/sbin/sshd -D -f "$1/$3.sshd_config" -E "$1/$3.log" >/dev/null
  ' sh "$work" "$root" "$cpu" &
done
cat >/dev/null
