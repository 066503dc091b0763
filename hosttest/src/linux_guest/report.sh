#!/bin/sh
# Prints what the kernel found, in sections for a program to read (report.rs). Most lines are the kernel's own.

# The first line of a file, if it can be read.
value() {
    value=
    [ -r "$1" ] && read -r value <"$1" 2>/dev/null
    echo "${value:--}"
}
# Where a link leads, by its last name.
name() {
    if [ -e "$1" ]; then basename "$(readlink "$1")"; else echo -; fi
}

echo "@@ kernel"
cat /proc/version
echo "@@ processors"
grep '^processor' /proc/cpuinfo
echo "@@ ioports"
cat /proc/ioports
echo "@@ iomem"
cat /proc/iomem
echo "@@ interrupts"
cat /proc/interrupts
echo "@@ pci"
for function in /sys/bus/pci/devices/*; do
    [ -e "$function" ] || continue
    echo "function ${function##*/} $(value "$function/vendor") $(value "$function/device") $(value "$function/class")" \
        "$(value "$function/irq") $(name "$function/driver")"
    number=0
    while read -r first last flags; do
        [ $((flags)) -eq 0 ] || echo "resource $number $first $last $flags"
        number=$((number + 1))
    done <"$function/resource"
    for vector in "$function"/msi_irqs/*; do
        [ -e "$vector" ] && echo "message ${vector##*/} $(value "$vector")"
    done
done
echo "@@ serial"
cat /proc/tty/driver/serial
echo "@@ rtc"
for clock in /sys/class/rtc/rtc*; do
    [ -e "$clock" ] && echo "clock ${clock##*/} $(value "$clock/date") $(value "$clock/time") $(value "$clock/name")"
done
echo "@@ acpi"
for table in /sys/firmware/acpi/tables/*; do
    [ -f "$table" ] && echo "${table##*/}"
done
for device in /sys/bus/acpi/devices/*; do
    [ -e "$device/hid" ] && echo "device $(value "$device/path") $(value "$device/hid")"
done
echo "@@ clocksource"
value /sys/devices/system/clocksource/clocksource0/current_clocksource
value /sys/devices/system/clocksource/clocksource0/available_clocksource
echo "@@ end"
