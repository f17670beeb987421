# Second part of the guest's first process, among the host's files: loads the
# job's modules, runs the job, tells how it ended, powers off.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
box=/run/ontlab-bin/busybox
job=/run/ontlab

die() {
	echo "$1" >$job/failed
	$box poweroff -f
}

$box ip link set lo up
read -r modules <$job/modules-dir
$box mkdir -p /lib/modules
$box mount -o bind "$modules" /lib/modules || die "cannot see the kernel's modules in $modules"
while read -r module; do
	# Name and parameters: several words.
	problem=$(modprobe $module 2>&1) || die "cannot load module $module: $problem"
done <$job/modules

# No job control: the job must not stop for want of a terminal.
$box sh $job/command </dev/null >>$job/stdout 2>>$job/stderr
echo $? >$job/status
$box poweroff -f
