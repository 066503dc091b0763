//! The mnemonics of the opcode maps (Intel SDM vol. 2D, appendix A; AMD APM vol. 3, appendix A).
//!
//! A line lists the opcodes of a map from 00 on, with spaces between them. `name*4` stands for four opcodes, `-` for no
//! instruction. The comments behind the texts are the opcodes that they begin with.
//!
//! What is said of one opcode is divided further, by these separators from the outermost to the innermost:
//!
//! | separator | selects by | in the order |
//! |---|---|---|
//! | `:` | ModRM.mod | memory, register |
//! | `;` | ModRM.reg | 0 to 7 |
//! | `,` | mandatory prefix | none, 66, F3, F2 |
//! | `/`, two names | REX.W or VEX.W | 0, 1 |
//! | `/`, three names | operand size | 16, 32, 64 bits |
//!
//! One name where there could be several is the name for all of them, and an empty one is the first of its list. A list may
//! be shorter than it could be: the rest is no instruction.
//!
//! In the maps that VEX shares with the encoding without VEX, a name with `v` stands for both instructions: the one without
//! VEX is called the same, without `v`. Names with `!` begin with a `v` of their own; they have no VEX form.

/// The maps without VEX, and behind them, for each of those after 0F, what there is only with VEX.
pub(super) static MAPS: &str = concat!(
    // The opcodes of one byte (Intel SDM vol. 2D, tables ). 63 is that of 64-bit mode.
    "add*6 push pop or*6 push - ",                                                  // 00
    "adc*6 push pop sbb*6 push pop ",                                               // 10
    "and*6 - daa sub*6 - das ",                                                     // 20
    "xor*6 - aaa cmp*6 - aas ",                                                     // 30
    "inc*8 dec*8 push*8 pop*8 ",                                                    // 40
    "pusha popa bound movsxd -*4 ",                                                 // 60
    "push imul push imul insb insw/insd/insd outsb outsw/outsd/outsd jcc*16 ",      // 68
    "add;or;adc;sbb;and;sub;xor;cmp*4 test*2 xchg*2 mov*5 lea mov pop;- ",          // 80
    "nop,,pause, xchg*7 cbw/cwde/cdqe cwd/cdq/cqo call wait pushf popf sahf lahf ", // 90
    "mov*4 movsb movsw/movsd/movsq cmpsb cmpsw/cmpsd/cmpsq test*2 ",                // a0
    "stosb stosw/stosd/stosq lodsb lodsw/lodsd/lodsq scasb scasw/scasd/scasq ",     // aa
    "mov*16 rol;ror;rcl;rcr;shl;shr;sal;sar*2 ret*2 les lds ",                      // b0
    "mov;-*2 ",                                                                     // c6
    "enter leave ret*2 int3 int into iret rol;ror;rcl;rcr;shl;shr;sal;sar*4 ",      // c8
    "aam aad salc xlatb fadd;fmul;fcom;fcomp;fsub;fsubr;fdiv;fdivr ",               // d4
    "fld;-;fst;fstp;fldenv;fldcw;fnstenv;fnstcw:- ",                                // d9
    "fiadd;fimul;ficom;ficomp;fisub;fisubr;fidiv;fidivr:- ",                        // da
    "fild;fisttp;fist;fistp;-;fld;-;fstp:- ",                                       // db
    "fadd;fmul;fcom;fcomp;fsub;fsubr;fdiv;fdivr:- ",                                // dc
    "fld;fisttp;fst;fstp;frstor;-;fnsave;fnstsw:- ",                                // dd
    "fiadd;fimul;ficom;ficomp;fisub;fisubr;fidiv;fidivr:- ",                        // de
    "fild;fisttp;fist;fistp;fbld;fild;fbstp;fistp:- ",                              // df
    "loopne loope loop jcxz in*2 out*2 call jmp*3 in*2 out*2 ",                     // e0
    "- int1 -*2 hlt cmc test;test;not;neg;mul;imul;div;idiv*2 ",                    // f0
    "clc stc cli sti cld std inc;dec inc;dec;call;call;jmp;jmp;push\n",             // f8
    // After 0F (table A-3).
    "sldt;str;lldt;ltr;!verr;!verw;-,-,-,lkgs ", // 00
    "sgdt;sidt;lgdt;lidt;smsw;-,-,rstorssp;lmsw;invlpg:-;-;-;-;smsw;-;lmsw ", // 01
    "lar lsl - syscall clts sysret invd wbinvd,,wbnoinvd, - ud2 - ", // 02
    "prefetch;prefetchw;prefetchwt1;prefetchw;;;;:nop femms - ", // 0d
    "vmovups,vmovupd,vmovss,vmovsd*2 ",          // 10
    "vmovlps,vmovlpd,vmovsldup,vmovddup:-,-,vmovsldup,vmovddup vmovlps,vmovlpd ", // 12
    "vunpcklps,vunpcklpd vunpckhps,vunpckhpd ",  // 14
    "vmovhps,vmovhpd,vmovshdup:-,-,vmovshdup vmovhps,vmovhpd ", // 16
    "prefetchnta;prefetcht0;prefetcht1;prefetcht2;nop;nop;prefetchit1;prefetchit0:nop nop*3 ", // 18
    "cldemote,nop,nop,nop;nop;nop;nop;nop;nop;nop;nop:nop nop nop:- nop ", // 1c
    "mov*4 -*4 vmovaps,vmovapd*2 cvtpi2ps,cvtpi2pd,vcvtsi2ss,vcvtsi2sd ", // 20
    "vmovntps,vmovntpd,movntss,movntsd cvttps2pi,cvttpd2pi,vcvttss2si,vcvttsd2si ", // 2b
    "cvtps2pi,cvtpd2pi,vcvtss2si,vcvtsd2si vucomiss,vucomisd vcomiss,vcomisd ", // 2d
    "wrmsr rdtsc rdmsr rdpmc sysenter sysexit - getsec -*8 ", // 30
    "cmovcc*16 - vsqrtps,vsqrtpd,vsqrtss,vsqrtsd vrsqrtps,-,vrsqrtss ", // 40
    "vrcpps,-,vrcpss vandps,vandpd vandnps,vandnpd vorps,vorpd vxorps,vxorpd ", // 53
    "vaddps,vaddpd,vaddss,vaddsd vmulps,vmulpd,vmulss,vmulsd ", // 58
    "vcvtps2pd,vcvtpd2ps,vcvtss2sd,vcvtsd2ss vcvtdq2ps,vcvtps2dq,vcvttps2dq ", // 5a
    "vsubps,vsubpd,vsubss,vsubsd vminps,vminpd,vminss,vminsd ", // 5c
    "vdivps,vdivpd,vdivss,vdivsd vmaxps,vmaxpd,vmaxss,vmaxsd ", // 5e
    "vpunpcklbw vpunpcklwd vpunpckldq vpacksswb vpcmpgtb vpcmpgtw vpcmpgtd vpackuswb ", // 60
    "vpunpckhbw vpunpckhwd vpunpckhdq vpackssdw vpunpcklqdq vpunpckhqdq ", // 68
    "vmovd/vmovd/vmovq movq,vmovdqa,vmovdqu pshufw,vpshufd,vpshufhw,vpshuflw ", // 6e
    "-*3 vpcmpeqb vpcmpeqw vpcmpeqd emms ",      // 71
    "!vmread,- !vmwrite,- -*2 -,vhaddpd,-,vhaddps -,vhsubpd,-,vhsubps ", // 78
    "vmovd/vmovd/vmovq,,vmovq movq,vmovdqa,vmovdqu ", // 7e
    "jcc*16 setcc*16 ",                          // 80
    "push pop cpuid bt shld*2 -*2 push pop rsm bts shrd*2 ", // a0
    "fxsave/fxsave64;fxrstor/fxrstor64;vldmxcsr;vstmxcsr;xsave/xsave64,-,ptwrite;", // ae, 0 to 4
    "xrstor/xrstor64;xsaveopt/xsaveopt64,clwb,clrssbsy;clflush,clflushopt:- imul ", // ae, 5 to 7
    "cmpxchg*2 lss btr lfs lgs movzx*2 -,-,popcnt ud1 -;-;-;-;bt;bts;btr;btc btc ", // b0
    "bsf,,tzcnt, bsr,,lzcnt, movsx*2 xadd*2 vcmpps,vcmppd,vcmpss,vcmpsd movnti ", // bc
    "vpinsrw - vshufps,vshufpd ",                // c4
    "-;cmpxchg8b/cmpxchg16b;-;xrstors/xrstors64;xsavec/xsavec64;xsaves/xsaves64;", // c7, 0 to 5
    "!vmptrld,!vmclear,!vmxon;!vmptrst:- bswap*8 ", // c7, 6 to 7
    "-,vaddsubpd,-,vaddsubps vpsrlw vpsrld vpsrlq vpaddq vpmullw ", // d0
    "-,vmovq - ",                                // d6
    "vpsubusb vpsubusw vpminub vpand vpaddusb vpaddusw vpmaxub vpandn ", // d8
    "vpavgb vpsraw vpsrad vpavgw vpmulhuw vpmulhw -,vcvttpd2dq,vcvtdq2pd,vcvtpd2dq ", // e0
    "movntq,vmovntdq vpsubsb vpsubsw vpminsw vpor vpaddsb vpaddsw vpmaxsw vpxor ", // e7
    "-,-,-,vlddqu vpsllw vpslld vpsllq vpmuludq vpmaddwd vpsadbw -:maskmovq,vmaskmovdqu ", // f0
    "vpsubb vpsubw vpsubd vpsubq vpaddb vpaddw vpaddd ud0\n", // f8
    // After 0F 38 (table A-4).
    "vpshufb vphaddw vphaddd vphaddsw vpmaddubsw vphsubw vphsubd vphsubsw ", // 00
    "vpsignb vpsignw vpsignd vpmulhrsw -*4 pblendvb -*3 blendvps blendvpd - vptest ", // 08
    "-*4 vpabsb vpabsw vpabsd - ",                                           // 18
    "vpmovsxbw vpmovsxbd vpmovsxbq vpmovsxwd vpmovsxwq vpmovsxdq -*2 ",      // 20
    "vpmuldq vpcmpeqq -,vmovntdqa:- vpackusdw -*4 ",                         // 28
    "vpmovzxbw vpmovzxbd vpmovzxbq vpmovzxwd vpmovzxwq vpmovzxdq - vpcmpgtq ", // 30
    "vpminsb vpminsd vpminuw vpminud vpmaxsb vpmaxsd vpmaxuw vpmaxud ",      // 38
    "vpmulld vphminposuw -*62 invept invvpid invpcid -*69 ",                 // 40
    "sha1nexte sha1msg1 sha1msg2 sha256rnds2 sha256msg1 sha256msg2 - vgf2p8mulb -*8 ", // c8
    "aesencwide128kl;aesdecwide128kl;aesencwide256kl;aesdecwide256kl:- -*2 ", // d8
    "vaesimc -,vaesenc,aesenc128kl:-,vaesenc ",                              // db
    "-,vaesenclast,aesdec128kl:-,vaesenclast -,vaesdec,aesenc256kl:-,vaesdec ", // dd
    "-,vaesdeclast,aesdec256kl:-,vaesdeclast -*16 movbe,,-,crc32:-,-,-,crc32*2 -*3 ", // df
    "-,wrussd/wrussq wrssd/wrssq,adcx,adox:-,adcx,adox - -,movdir64b,enqcmds,enqcmd ", // f5
    "movdiri -*2 aadd,aand,axor,aor\n",                                      // f9
    // After 0F 3A (table A-5).
    "-*8 vroundps vroundpd vroundss vroundsd vblendps vblendpd vpblendw vpalignr -*4 ", // 00
    "vpextrb vpextrw vpextrd/vpextrd/vpextrq vextractps -*8 vpinsrb vinsertps ",        // 14
    "vpinsrd/vpinsrd/vpinsrq -*29 vdpps vdppd vmpsadbw - vpclmulqdq -*27 ",             // 22
    "vpcmpestrm vpcmpestri vpcmpistrm vpcmpistri -*104 ",                               // 60
    "sha1rnds4 - vgf2p8affineqb vgf2p8affineinvqb -*15 vaeskeygenassist\n",             // cc
    // In the VEX map 1, and not after 0F.
    "-*144 kmovw/kmovq,kmovb/kmovd*2\n", // 00
    // In the VEX map 2, and not after 0F 38.
    "-*12 vpermilps vpermilpd vtestps vtestpd -*3 vcvtph2ps -*2 vpermps - ", // 00
    "vbroadcastss vbroadcastsd vbroadcastf128 -*17 ",                        // 18
    "vmaskmovps vmaskmovpd vmaskmovps vmaskmovpd -*6 vpermd -*14 ",          // 2c
    "vpsrlvd/vpsrlvq vpsravd vpsllvd/vpsllvq - ldtilecfg,sttilecfg:- - ",    // 45
    "-,tileloaddt1,tilestored,tileloadd -*4 ",                               // 4b
    "vpdpbuud,vpdpbusd,vpdpbsud,vpdpbssd vpdpbuuds,vpdpbusds,vpdpbsuds,vpdpbssds ", // 50
    "vpdpwssd vpdpwssds -*4 vpbroadcastd vpbroadcastq vbroadcasti128 -*23 ", // 52
    "vcvtneps2bf16 -*5 vpbroadcastb vpbroadcastw -*18 ",                     // 72
    "vpmaskmovd/vpmaskmovq - vpmaskmovd/vpmaskmovq - ",                      // 8c
    "vpgatherdd/vpgatherdq vpgatherqd/vpgatherqq ",                          // 90
    "vgatherdps/vgatherdpd vgatherqps/vgatherqpd -*2 ",                      // 92
    "vfmaddsub132ps/vfmaddsub132pd vfmsubadd132ps/vfmsubadd132pd ",          // 96
    "vfmadd132ps/vfmadd132pd vfmadd132ss/vfmadd132sd ",                      // 98
    "vfmsub132ps/vfmsub132pd vfmsub132ss/vfmsub132sd ",                      // 9a
    "vfnmadd132ps/vfnmadd132pd vfnmadd132ss/vfnmadd132sd ",                  // 9c
    "vfnmsub132ps/vfnmsub132pd vfnmsub132ss/vfnmsub132sd -*6 ",              // 9e
    "vfmaddsub213ps/vfmaddsub213pd vfmsubadd213ps/vfmsubadd213pd ",          // a6
    "vfmadd213ps/vfmadd213pd vfmadd213ss/vfmadd213sd ",                      // a8
    "vfmsub213ps/vfmsub213pd vfmsub213ss/vfmsub213sd ",                      // aa
    "vfnmadd213ps/vfnmadd213pd vfnmadd213ss/vfnmadd213sd ",                  // ac
    "vfnmsub213ps/vfnmsub213pd vfnmsub213ss/vfnmsub213sd ",                  // ae
    "vcvtneoph2ps,vcvtneeph2ps,vcvtneebf162ps,vcvtneobf162ps ",              // b0
    "-,vbcstnesh2ps,vbcstnebf162ps -*2 vpmadd52luq vpmadd52huq ",            // b1
    "vfmaddsub231ps/vfmaddsub231pd vfmsubadd231ps/vfmsubadd231pd ",          // b6
    "vfmadd231ps/vfmadd231pd vfmadd231ss/vfmadd231sd ",                      // b8
    "vfmsub231ps/vfmsub231pd vfmsub231ss/vfmsub231sd ",                      // ba
    "vfnmadd231ps/vfnmadd231pd vfnmadd231ss/vfnmadd231sd ",                  // bc
    "vfnmsub231ps/vfnmsub231pd vfnmsub231ss/vfnmsub231sd -*18 ",             // be
    "vpdpwuud,vpdpwusd,vpdpwsud vpdpwuuds,vpdpwusds,vpdpwsuds -*6 ",         // d2
    "vsm3msg1,vsm3msg2,vsm4key4,vsm4rnds4 -*5 ",                             // da
    "cmpccxadd*16 -*2 ",                                                     // e0
    "andn -;blsr;blsmsk;blsi - bzhi,-,pext,pdep mulx bextr,shlx,sarx,shrx\n", // f2
    // In the VEX map 3, and not after 0F 3A.
    "vpermq vpermpd vpblendd - vpermilps vpermilpd vperm2f128 -*17 ", // 00
    "vinsertf128 vextractf128 -*3 vcvtps2ph -*26 vinserti128 vextracti128 -*12 ", // 18
    "vperm2i128 - vpermil2ps vpermil2pd vblendvps vblendvpd vpblendvb -*145 vsm3rnds2 -*17 rorx", // 46
);

/// How many lines there are between what VEX shares of a map and what it has alone.
pub(super) const VEX_ALONE: u8 = 3;

/// The opcodes 6F and 7F of the EVEX map 1.
pub(super) static EVEX_MOVE: &str = "-,vmovdqa32/vmovdqa64,vmovdqu32/vmovdqu64,vmovdqu8/vmovdqu16";
