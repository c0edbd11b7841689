#!/usr/bin/env python3
"""The one generator. Reads the tables of this folder, checks them, writes C and documentation.

    gen.py OUTDIR            writes farwarp/cuda.h, cuda_ops.h, cuda_calls.inc, client_custom.h, client_exports.inc,
                             client_procs.inc, cuda_names.inc, cuda_marks.inc, cuda_null_tests.inc, cuda_invoke.inc, client_remote.inc,
                             client_remote_hand.h, server_custom.inc, native_calls.inc into OUTDIR
    gen.py --coverage FILE   writes the coverage page
    gen.py --exports         prints the exported names, sorted
    gen.py --procs           prints the cuGetProcAddress map: BASE FAMILY ABI SYMBOL, sorted
    gen.py --check           only checks the tables
    --tables DIR             reads the tables of another folder

Errors are reported as file:line: error: text. What the notation means stands at the top of each table.
It does not decide anything about a call: every decision is a word in the table.
"""
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
CLASSES = ('local', 'async', 'sync')
NEEDS = ('none', 'init', 'context')
DIRECTIONS = ('in', 'out', 'out?', 'inout', 'buf')
FAMILIES = ('ptsz', 'ptds')
WIRES = ('hand', 'client', 'wrap', 'none')
SIZES = ('pool_attribute', 'graph_memory_attribute', 'pointer_attribute')  # src/call/sizes.c


class TableError(Exception):
    pass


def fail(path, line, text):
    raise TableError('%s:%d: error: %s' % (os.path.relpath(path), line, text))


def declare(ctype, name):
    """TYPE NAME, with the stars at the name."""
    bare = ctype.rstrip('*')
    return '%s %s%s' % (bare.rstrip(), '*' * (len(ctype) - len(bare)), name)


class Param:
    def __init__(self, direction, ctype, name, shape=''):
        self.direction, self.ctype, self.name = direction, ctype, name
        self.shape = shape      # of what a pointer points to; '': one element

    def declare(self):
        return declare(self.ctype, self.name)


class Call:
    """One exported symbol with its per-thread-stream twins."""

    def __init__(self, name, base, abi, line):
        self.name, self.base, self.abi, self.line = name, base, abi, line
        self.families = {}      # 'ptsz' or 'ptds' -> ABI version
        self.klass = self.needs = self.refuse = None
        self.custom = False     # answered by hand in src/client; no member in struct cuda_ops
        self.wire = ''          # how it is forwarded to a server; '': as its rows say
        self.always = False     # outputs are written also when it fails
        self.wrap = False       # the same, but around a member of struct cuda_ops
        self.native = False     # nv_NAME is written by hand in src/native
        self.section = ''
        self.params = []

    def args(self):
        return ', '.join(p.declare() for p in self.params) or 'void'

    def names(self):
        return ', '.join(p.name for p in self.params)

    def streams(self):
        """The parameters that a ptsz twin replaces when they are 0."""
        return [p for p in self.params if p.ctype == 'CUstream']

    def packed(self):
        """Whether its rows say how it is forwarded."""
        return not (self.refuse or self.custom or self.wire not in ('', 'wrap'))

    def symbols(self):
        return [self.name] + ['%s_%s' % (self.name, family) for family in self.families]


def strip_comment(text):
    return text.split('#', 1)[0].rstrip() if text.lstrip().startswith('#') else text.rstrip()


def read_calls(path):
    calls, section, call, seen = [], '', None, {}
    for number, raw in enumerate(open(path, encoding='utf-8'), 1):
        if raw.startswith('# ---- '):
            section = raw[7:].strip()
        text = strip_comment(raw)
        if not text.strip():
            continue
        if text.startswith('call '):
            words = text.split()
            if len(words) < 5:
                fail(path, number, 'a call needs: NAME BASE@ABI CLASS NEEDS')
            name, versioned, rest = words[1], words[2], words[3:]
            match = re.fullmatch(r'(cu\w+)@(\d+)', versioned)
            if not match:
                fail(path, number, 'cannot read "%s" as BASE@ABI' % versioned)
            if name in seen:
                fail(path, number, '%s is already on line %d' % (name, seen[name]))
            seen[name] = number
            call = Call(name, match.group(1), int(match.group(2)), number)
            call.section = section
            for word in rest:
                family = re.fullmatch(r'(\w+)@(\d+)', word)
                if family and family.group(1) in FAMILIES:
                    call.families[family.group(1)] = int(family.group(2))
                elif word in CLASSES and call.klass is None:
                    call.klass = word
                elif word in NEEDS and call.needs is None:
                    call.needs = word
                elif word == 'custom=client':
                    call.custom = True
                elif word == 'wrap=client':
                    call.wrap = True
                elif word == 'native=hand':
                    call.native = True
                elif word[:5] == 'wire=' and word[5:] in WIRES:
                    call.wire = word[5:]
                elif word == 'outputs=always':
                    call.always = True
                elif re.fullmatch(r'refuse=[A-Z_]+', word):
                    call.refuse = 'CUDA_ERROR_' + word[7:]
                else:
                    fail(path, number, 'unknown word "%s"' % word)
            if call.klass is None or call.needs is None:
                fail(path, number, '%s has no class or no needs' % name)
            if call.custom + call.wrap + bool(call.refuse) > 1:
                fail(path, number, '%s has more than one of custom, wrap and refuse' % name)
            if call.custom and call.native:
                fail(path, number, '%s is answered by the client alone: there is nothing for native=hand' % name)
            calls.append(call)
            continue
        match = re.fullmatch(r'\t(\S+)\t([^\t]+)\t(\w+)(?:\t(\S+))?', text)
        if not match or call is None:
            fail(path, number, 'cannot read this as DIRECTION TYPE NAME [SHAPE]')
        direction, ctype, name, shape = match.groups()
        if direction not in DIRECTIONS:
            fail(path, number, 'unknown direction "%s"' % direction)
        if direction != 'in' and not ctype.endswith('*'):
            fail(path, number, '%s is %s but not a pointer' % (name, direction))
        if shape and not ctype.endswith('*'):
            fail(path, number, '%s has a shape but is not a pointer' % name)
        call.params.append(Param(direction, ctype, name, shape or ''))
        call.params[-1].line = number
    for c in calls:
        for p in c.params:
            read_shape(path, c, p)
    versions = {}
    for c in calls:
        for family, abi in [('', c.abi)] + list(c.families.items()):
            key = (c.base, family, abi)
            if key in versions:
                fail(path, c.line, '%s@%d is already on line %d' % (c.base, abi, versions[key]))
            versions[key] = c.line
    return calls


def read_shape(path, call, param):
    """Sets param.wire: the row's words SHAPE, index of the parameter that counts, what is added to it, or a size function."""
    names = [p.name for p in call.params]
    shape = param.shape
    param.wire = ('VALUE', 0, 0) if not param.ctype.endswith('*') else ('ONE', 0, 0)
    if shape in ('str', 'value', 'null'):
        param.wire = ({'str': 'STRING', 'value': 'VALUE', 'null': 'NULL'}[shape], 0, 0)
    elif shape:
        match = re.fullmatch(r'\[(\*?)(\w+)(-\d+)?\]', shape)
        sized = re.fullmatch(r'size=(\w+)\((\w+)\)', shape)
        if match and match.group(2) in names:
            param.wire = ('ARRAY_AT' if match.group(1) else 'ARRAY', names.index(match.group(2)), int(match.group(3) or 0))
        elif sized and sized.group(1) in SIZES and sized.group(2) in names:
            param.wire = ('SIZED', names.index(sized.group(2)), SIZES.index(sized.group(1)))
        else:
            fail(path, param.line, 'cannot read the shape "%s"' % shape)
    elif param.ctype == 'const char*' and not call.packed():
        param.wire = ('STRING', 0, 0)   # only shown
    elif param.ctype.endswith('*') and call.packed():
        if param.direction == 'buf' or param.ctype.endswith('**'):
            fail(path, param.line, '%s needs a shape, or the call a wire= mark' % param.name)
        if param.ctype in ('void*', 'const void*'):
            fail(path, param.line, '%s needs a shape: how many bytes?' % param.name)
        if param.ctype == 'const char*':
            fail(path, param.line, '%s needs a shape: is it a string?' % param.name)


def read_types(path):
    """Returns a list of (kind, line, ...) items in file order; the notation is nearly C, so fields stay text."""
    items, stack = [], []
    for number, raw in enumerate(open(path, encoding='utf-8'), 1):
        text = strip_comment(raw)
        if not text.strip():
            continue
        words = text.split()
        if stack and stack[-1][0] in ('struct', 'union'):
            if words[0] == 'end':
                node = stack.pop()
                node[3] = words[1] if len(words) > 1 else ''
                continue
            if words[0] in ('struct', 'union') and len(words) == 1:
                node = [words[0], number, [], '']
                stack[-1][2].append(node)
                stack.append(node)
                continue
            match = re.fullmatch(r'\t+([^\t]+)\t(\w+(?:\[\w+\])*)', text)
            if not match:
                fail(path, number, 'cannot read this as TYPE NAME')
            stack[-1][2].append((match.group(1), match.group(2)))
            continue
        if text.startswith('\t'):
            if not items or items[-1][0] not in ('enum', 'errors'):
                fail(path, number, 'a row outside any block')
            items[-1][3].append((number, text.strip()))
            continue
        kind = words[0]
        if kind in ('struct', 'union'):
            align = [w[6:] for w in words[2:] if w.startswith('align=')]
            tag = [w for w in words[2:] if not w.startswith('align=')]
            node = [kind, number, [], '']
            items.append((kind, number, words[1], node, tag[0] if tag else '', align[0] if align else None))
            stack.append(node)
        elif kind == 'enum':
            items.append((kind, number, words[1], []))
        elif kind == 'handle' and len(words) == 3:
            items.append((kind, number, words[1], words[2]))
        elif kind in ('alias', 'const') and len(words) > 2:
            items.append((kind, number, words[1], ' '.join(words[2:])))
        elif kind == 'callback':
            match = re.fullmatch(r'callback (\w+) (.+?) \((.*)\)', text)
            if not match:
                fail(path, number, 'cannot read this callback')
            items.append((kind, number) + match.groups())
        else:
            fail(path, number, 'unknown word "%s"' % kind)
    if stack:
        fail(path, stack[0][1], 'this block has no end')
    return items


def read_errors(path):
    """Rows of VALUE NAME TEXT."""
    rows = []
    for number, raw in enumerate(open(path, encoding='utf-8'), 1):
        text = strip_comment(raw)
        if not text:
            continue
        match = re.fullmatch(r'(\d+)\t(CUDA_\w+)\t(.+)', text)
        if not match:
            fail(path, number, 'cannot read this as VALUE NAME TEXT')
        rows.append((int(match.group(1)), match.group(2), match.group(3)))
    return rows


# ---- output ------------------------------------------------------------------------------------------------------

BANNER = '/* Made by api/gen.py from api/%s. Do not edit. */\n'


def emit_fields(node, depth):
    tabs, out = '\t' * depth, []
    for field in node[2]:
        if isinstance(field, list):
            out.append('%s%s {' % (tabs, field[0]))
            out += emit_fields(field, depth + 1)
            out.append('%s}%s;' % (tabs, ' ' + field[3] if field[3] else ''))
        else:
            out.append('%s%s;' % (tabs, declare(*field)))
    return out


def emit_header(types, errors, calls):
    out = [BANNER % 'cuda.types and cuda.api',
           '#ifndef FARWARP_CUDA_H\n#define FARWARP_CUDA_H\n',
           '#include <stddef.h>\n#include <stdint.h>\n',
           '#ifdef __cplusplus\nextern "C" {\n#endif\n']
    for item in types:
        kind, name = item[0], item[2]
        if kind == 'handle':
            out.append('typedef struct %s *%s;' % (item[3], name))
        elif kind == 'alias':
            out.append('typedef %s %s;' % (item[3], name))
        elif kind == 'callback':
            out.append('typedef %s (*%s)(%s);' % (item[3], name, item[4] or 'void'))
        elif kind == 'const':
            out.append('#define %s %s' % (name, item[3]))
        elif kind == 'enum':
            out.append('\ntypedef enum {')
            for _, row in item[3]:
                words = row.split('\t')
                out.append('\t%s%s,' % (words[0], ' = ' + words[1] if len(words) > 1 else ''))
            out.append('} %s;' % name)
        else:
            node, tag, align = item[3], item[4], item[5]
            attribute = '__attribute__((aligned(%s))) ' % align if align else ''
            out.append('\ntypedef %s %s%s {' % (kind, attribute, tag))
            out += emit_fields(node, 1)
            out.append('} %s;' % name)
        if name == 'CUdevice':
            out.append('\ntypedef enum {')
            out += ['\t%s = %d,' % (e[1], e[0]) for e in errors]
            out.append('} CUresult;\n')
    out.append('')
    for c in calls:
        out.append('CUresult %s(%s);' % (c.name, c.args()))
        for family in c.families:
            out.append('CUresult %s_%s(%s);' % (c.name, family, c.args()))
    out.append('\n#ifdef __cplusplus\n}\n#endif\n#endif')
    return '\n'.join(out) + '\n'


def emit_ops(calls):
    """struct cuda_ops: one member a prototype; the ptsz/ptds twins share it."""
    out = [BANNER % 'cuda.api', '#ifndef FARWARP_CUDA_OPS_H\n#define FARWARP_CUDA_OPS_H\n',
           '#include <farwarp/cuda.h>\n',
           '/* An implementation of the driver API. A NULL member is a call that it does not serve. */',
           'struct cuda_ops {', '\tconst char *name; /* "soft", "native", ... */',
           '\t/* The handle of the primary context, which is the same before, while and after it is retained. */',
           '\tCUresult (*primary_context)(CUcontext *ctx, CUdevice dev);']
    out += ['\tCUresult (*%s)(%s);' % (c.name, c.args()) for c in calls if not c.custom]
    out.append('};\n')
    out.append('enum cuda_call_id {')
    out += ['\tCALL_%s,' % c.name for c in calls]
    out.append('\tCALL_COUNT\n};\n#endif')
    return '\n'.join(out) + '\n'


KINDS = {'int': 'I32', 'unsigned': 'U32', 'size_t': 'U64', 'unsigned long long': 'U64', 'uint64_t': 'U64', 'uint32_t': 'U32',
         'long long': 'I64', 'unsigned char': 'U8', 'uint8_t': 'U8', 'unsigned short': 'U16', 'uint16_t': 'U16', 'char': 'CHAR',
         'float': 'F32', 'double': 'F64', 'void': 'OPAQUE', 'CUdeviceptr': 'DEVPTR', 'CUdeviceptr_v1': 'HEX32', 'CUresult': 'RESULT',
         'const char*': 'STRING', 'hex32': 'HEX32', 'hex64': 'HEX64',
         'CUtexObject': 'HANDLE', 'CUsurfObject': 'HANDLE', 'CUmemGenericAllocationHandle': 'HANDLE', 'CUgraphConditionalHandle': 'HANDLE'}


class TypeRows:
    """The types that parameters and fields have, for showing values: an index a type, rows for enumerations and structures."""

    def __init__(self, types):
        self.types = {t[2]: t for t in types}
        self.numbers, self.rows, self.arrays = {}, [], []

    def kind(self, ctype):
        if ctype in KINDS:
            return KINDS[ctype]
        if ctype.endswith('*'):
            return 'POINTER'
        item = self.types.get(ctype)
        if item is None:
            return 'OPAQUE'
        return {'handle': 'HANDLE', 'callback': 'POINTER', 'enum': 'ENUM', 'struct': 'STRUCT', 'union': 'OPAQUE', 'alias': 'ALIAS',
                'const': 'OPAQUE'}[item[0]]

    def index(self, ctype):
        """The number of a type; its row and those of its fields are made when it is first asked for."""
        if ctype != 'const char*':
            ctype = re.sub(r'^const ', '', ctype)
        if self.kind(ctype) == 'ALIAS':
            return self.index(self.types[ctype][3])
        if ctype in self.numbers:
            return self.numbers[ctype]
        kind = self.kind(ctype)
        number = self.numbers[ctype] = len(self.rows)
        self.rows.append(None)
        size = {'void': '1', 'hex32': '4', 'hex64': '8'}.get(ctype, 'sizeof(%s)' % ctype)
        rows, count = 'NULL', 0
        if kind == 'ENUM':
            names = [row.split('\t')[0] for _, row in self.types[ctype][3]]
            self.arrays.append('static const struct call_value values_%s[] = {\n\t%s,\n};' % (
                ctype, ',\n\t'.join('{ "%s", (int)%s }' % (n, n) for n in names)))
            rows, count = 'values_' + ctype, len(names)
        elif kind == 'STRUCT':
            fields = list(self.fields(ctype, self.types[ctype][3], ''))
            self.arrays.append('static const struct call_field fields_%s[] = {\n\t%s,\n};' % (ctype, ',\n\t'.join(fields)))
            rows, count = 'fields_' + ctype, len(fields)
        self.rows[number] = '{ "%s", CALL_KIND_%s, %s, %d, %s, %s }' % (
            ctype, kind, size, count, rows if kind == 'ENUM' else 'NULL', rows if kind == 'STRUCT' else 'NULL')
        return number

    def fields(self, struct, node, prefix):
        """Rows of NAME, type, offset, elements. What lies in a union is not told: which member holds, no row says."""
        for field in node[2]:
            if not isinstance(field, list):
                name, *dimensions = re.findall(r'\w+', field[1])
                yield '{ "%s%s", %d, offsetof(%s, %s%s), %s }' % (
                    prefix, name, self.index(field[0]), struct, prefix, name, ' * '.join(dimensions) or '1')
            elif field[0] == 'struct':
                yield from self.fields(struct, field, prefix + (field[3] + '.' if field[3] else ''))
            elif field[3]:
                yield '{ "%s%s", %d, offsetof(%s, %s%s), 1 }' % (prefix, field[3], self.index('void'), struct, prefix, field[3])

    def of(self, param):
        """Of a parameter's value, or of what it points to."""
        ctype = param.ctype
        if param.wire[0] == 'VALUE':
            if 'flags' in param.name.lower() and KINDS.get(ctype) in ('U32', 'U64'):
                return self.index('hex32' if KINDS[ctype] == 'U32' else 'hex64')
            return self.index(ctype)
        return self.index('char' if param.wire[0] == 'STRING' else ctype[:-1].strip())


def element_size(param):
    """As C: of the value, or of one element of what it points to."""
    if param.wire[0] == 'VALUE':
        return 'sizeof(%s)' % param.ctype
    target = param.ctype[:-1].strip()
    return '1' if target in ('void', 'const void') else 'sizeof(%s)' % target


def emit_invoke(calls):
    """The cases of a switch that makes a call from pointers to its arguments."""
    out = [BANNER % 'cuda.api']
    for c in calls:
        if not c.custom and not c.refuse:
            arguments = ', '.join('*(%s *)args[%d]' % (declare(p.ctype, '').strip(), i) for i, p in enumerate(c.params))
            out.append('case CALL_%s:\n\treturn ops->%s ? ops->%s(%s) : CUDA_ERROR_NOT_SUPPORTED;' % (c.name, c.name, c.name, arguments))
    return '\n'.join(out) + '\n'


# Of the calls that src/client writes by hand, those that tell a failure of the context before they look at their arguments.
TELL_FIRST = ('cuMem', 'cuModuleLoad', 'cuLaunch', 'cuStreamAddCallback', 'cuPointer', 'cuOccupancy')


def emit_remote(calls):
    """The operations of the device behind a server, for src/client/remote.c."""
    out = [BANNER % 'cuda.api']
    served = [c for c in calls if not (c.refuse or c.custom or c.wire == 'none')]
    for c in served:
        if c.wire:
            if c.name.startswith(TELL_FIRST):
                out.append('static CUresult\nfirst_%s(%s)\n{\n\tCUresult told = rm_told();\n\n\treturn told != CUDA_SUCCESS ? told : rm_%s(%s);\n}\n'
                           % (c.name, c.args(), c.name, ', '.join(p.name for p in c.params)))
            continue
        arguments = ', '.join('&' + p.name for p in c.params) or 'NULL'
        out.append('static CUresult\nrm_%s(%s)\n{\n\treturn rm_call(CALL_%s, (const void *const[]){ %s });\n}\n'
                   % (c.name, c.args(), c.name, arguments))
    out.append('static const struct cuda_ops rm_ops = {\n\t.name = "remote",\n\t.primary_context = primary_context,')
    out += ['\t.%s = %s_%s,' % (c.name, 'first' if c.wire and c.name.startswith(TELL_FIRST) else 'rm', c.name) for c in served]
    out.append('};')
    return '\n'.join(out) + '\n'


def emit_remote_hand(calls):
    """Prototypes of what src/client writes by hand for a device behind a server."""
    return '\n'.join([BANNER % 'cuda.api'] + ['CUresult rm_%s(%s);' % (c.name, c.args()) for c in calls if c.wire in ('hand', 'client', 'wrap')]) + '\n'


def emit_server(calls):
    """CUSTOM(call): those whose records src/server reads by hand."""
    return '\n'.join([BANNER % 'cuda.api'] + ['CUSTOM(%s)' % c.name for c in calls if c.wire == 'hand']) + '\n'


# What a call names, for src/client: what it said stays true until one of the kind ends.
TOUCHES = {'CUstream': 'STREAM', 'CUevent': 'EVENT', 'CUgraph': 'GRAPH', 'CUgraphNode': 'GRAPH', 'CUgraphExec': 'GRAPH',
           'CUuserObject': 'GRAPH', 'CUdeviceptr': 'MEMORY', 'CUmemoryPool': 'MEMORY', 'CUmemGenericAllocationHandle': 'MEMORY'}


def touches(param):
    return TOUCHES.get(param.ctype.replace('const', '').replace('*', '').strip(), 'OTHER')


def touches_all(call):
    return ' | '.join('CALL_TOUCHES_' + t for t in sorted({touches(p) for p in call.params} - {'OTHER'}) + ['OTHER'])


def emit_native(calls):
    """The operations on the machine's real driver, for src/native/driver.c: the functions wanted of it, where each is found, and a
    function a call that makes the thread's context current in the driver and passes the call on."""
    out = [BANNER % 'cuda.api']
    served = [c for c in calls if not c.custom]
    out.append('static struct {')
    for c in served:
        arguments = ', '.join(declare(p.ctype, '').strip() for p in c.params) or 'void'
        out += ['\tCUresult (*%s)(%s);' % (symbol, arguments) for symbol in c.symbols()]
    out.append('} driver;\n')
    out.append('/* Each function: its exported name, and name, version and family for cuGetProcAddress. */\n#define NATIVE_ROWS \\')
    rows = []
    for c in served:
        rows.append('\t{ "%s", "%s", %d, 0, (void **)&driver.%s },' % (c.name, c.base, c.abi, c.name))
        rows += ['\t{ "%s_%s", "%s", %d, 1, (void **)&driver.%s_%s },' % (c.name, f, c.base, abi, c.name, f) for f, abi in c.families.items()]
    out.append(' \\\n'.join(rows) + '\n')
    for c in served:
        if c.native:
            out.append('static CUresult nv_%s(%s);' % (c.name, c.args()))
            continue
        out.append('static CUresult\nnv_%s(%s)\n{' % (c.name, c.args()))
        out.append('\tCUresult nv_result = enter(%s);\n' % ('true' if c.needs == 'context' else 'false'))
        out.append('\tif (nv_result != CUDA_SUCCESS)\n\t\treturn nv_result;')
        # A twin is needed only where the stream is not an argument: else the client passes CU_STREAM_PER_THREAD.
        for family in c.families:
            if not (family == 'ptsz' and c.streams()):
                out.append('\tif (fw_thread.per_thread_stream && driver.%s_%s)\n\t\treturn driver.%s_%s(%s);' %
                           (c.name, family, c.name, family, c.names()))
        out.append('\treturn driver.%s ? driver.%s(%s) : missing(CALL_%s, "%s");\n}\n' % (c.name, c.name, c.names(), c.name, c.name))
    out.append('static const struct cuda_ops nv_ops = {\n\t.name = "native",\n\t.primary_context = primary_context,')
    out += ['\t.%s = nv_%s,' % (c.name, c.name) for c in served]
    out.append('};')
    return '\n'.join(out) + '\n'


def emit_call_rows(calls, types):
    """Rows for packing and showing calls: struct call_type call_types[], struct call_param arrays and struct call_desc calls[]."""
    kinds, params = TypeRows(types), []
    for c in calls:
        rows = []
        for p in c.params:
            direction = p.direction.upper().replace('?', '_OPTIONAL')
            if direction == 'BUF' and p.shape:
                direction = 'BUF_IN' if p.ctype.startswith('const ') else 'BUF_OUT'
            rows.append('{ "%s", CALL_DIR_%s, CALL_SHAPE_%s, %d, %d, %s, %d }' % (
                (p.name, direction) + p.wire + (element_size(p), kinds.of(p))))
        if rows:
            params.append('static const struct call_param params_%s[] = {\n\t%s,\n};' % (c.name, ',\n\t'.join(rows)))
    out = [BANNER % 'cuda.api'] + kinds.arrays
    out.append('const struct call_type call_types[] = {\n\t%s,\n};\n' % ',\n\t'.join(kinds.rows))
    out += params
    out.append('\nconst struct call_desc call_descs[CALL_COUNT] = {')
    for c in calls:
        wire = 'NONE' if c.refuse or c.custom else 'ROWS' if c.packed() else c.wire.upper()
        first = touches(c.params[0]) if c.params else 'OTHER'
        out.append('\t[CALL_%s] = { "%s", CALL_CLASS_%s, %s, %d, CALL_WIRE_%s, %s, CALL_TOUCHES_%s, %d, %d },' % (
            c.name, c.name, c.klass.upper(), 'params_' + c.name if c.params else 'NULL', len(c.params), wire, touches_all(c),
            first if first != 'OTHER' else 'ALL', int(c.always), not c.refuse and not c.custom))
    out.append('};')
    return '\n'.join(out) + '\n'


def emit_custom(calls):
    """Prototypes of what src/client writes by hand, one function a call that is marked custom or wrap."""
    out = [BANNER % 'cuda.api', '#ifndef FARWARP_CLIENT_CUSTOM_H\n#define FARWARP_CLIENT_CUSTOM_H\n',
           '#include <farwarp/cuda.h>\n']
    out += ['CUresult cl_%s(%s);' % (c.name, c.args()) for c in calls if c.custom or c.wrap]
    out.append('\n#endif')
    return '\n'.join(out) + '\n'


def emit_exports(calls):
    """The exported symbols: open gate or the slow way; context, NULL checks of outputs, the answer."""
    out = [BANNER % 'cuda.api']
    for c in calls:
        checks = ['%s == NULL' % p.name for p in c.params if p.direction in ('out', 'inout')]
        out.append('static inline CUresult\nanswer_%s(%s)\n{' % (c.name, c.args()))
        if c.needs == 'context':
            out.append('\tif (__builtin_expect(fw_thread.ctx == NULL, 0))\n\t\treturn CUDA_ERROR_INVALID_CONTEXT;')
        if c.refuse:
            out.append('\treturn cl_refuse(CALL_%s, %s);\n}\n' % (c.name, c.refuse))
        else:
            if checks:
                out.append('\tif (%s)\n\t\treturn CUDA_ERROR_INVALID_VALUE;' % ' || '.join(checks))
            if c.custom or c.wrap:
                out.append('\treturn cl_%s(%s);\n}\n' % (c.name, c.names()))
            else:
                out.append('\treturn cl_ops->%s ? cl_ops->%s(%s) : cl_unserved(CALL_%s);\n}\n' % (c.name, c.name, c.names(), c.name))
        names = c.names()
        out.append('CL_SLOW CUresult\nslow_%s(%s%sconst char *cl_symbol, void *cl_caller)\n{' % (c.name, c.args() if c.params else '', ', ' if c.params else ''))
        out.append('\tstruct cl_slow cl_slow;\n\tCUresult cl_result = cl_slow_begin(&cl_slow, CALL_%s, CL_NEEDS_%s, cl_symbol, cl_caller, %s);\n' % (
            c.name, c.needs.upper(), '(const void *const[]){ %s }' % ', '.join('&' + p.name for p in c.params) if c.params else 'NULL'))
        out.append('\tif (cl_result == CUDA_SUCCESS)\n\t\tcl_result = answer_%s(%s);\n\treturn cl_slow_end(&cl_slow, cl_result);\n}\n' % (c.name, names))
        for family in [''] + list(c.families):
            symbol = c.name + ('_' + family if family else '')
            streams = c.streams() if family == 'ptsz' else []
            marked = family and not streams     # the default stream is not an argument: tell it by a flag
            out.append('CL_EXPORT CUresult\n%s(%s)\n{' % (symbol, c.args()))
            for stream in streams:
                out.append('\tif (%s == NULL)\n\t\t%s = CU_STREAM_PER_THREAD;' % (stream.name, stream.name))
            slow = 'slow_%s(%s"%s", __builtin_return_address(0))' % (c.name, names + ', ' if names else '', symbol)
            answer = 'answer_%s(%s)' % (c.name, names)
            if marked and not c.refuse:
                out.append('\tcl_ptds_begin();\n\tCUresult cl_result = cl_gate_is_open() ? %s : %s;\n\tcl_ptds_end();\n\treturn cl_result;\n}\n' % (answer, slow))
            else:
                out.append('\treturn cl_gate_is_open() ? %s : %s;\n}\n' % (answer, slow))
    return '\n'.join(out) + '\n'


def proc_rows(calls):
    """Rows of the cuGetProcAddress map: base, 1 for the per-thread family, ABI version, symbol; sorted."""
    rows = []
    for c in calls:
        rows.append((c.base, 0, c.abi, c.name))
        for family, abi in c.families.items():
            rows.append((c.base, 1, abi, c.name + '_' + family))
    return sorted(rows)


def emit_procs(calls):
    out = [BANNER % 'cuda.api']
    out += ['{ "%s", %d, %d, (void *)%s },' % row for row in proc_rows(calls)]
    return '\n'.join(out) + '\n'


def emit_marks(calls):
    """MARK(call, served): what the table says of each member of struct cuda_ops, for the test that compares them."""
    out = [BANNER % 'cuda.api']
    out += ['MARK(%s, %d)' % (c.name, 0 if c.refuse else 1) for c in calls if not c.custom]
    return '\n'.join(out) + '\n'


def emit_null_tests(calls):
    """NULL_TEST(symbol, parameter, arguments): the call with NULL for one output and zeros or scratch memory elsewhere."""
    out = [BANNER % 'cuda.api']
    for c in calls:
        if c.refuse:
            continue
        for tested in c.params:
            if tested.direction not in ('out', 'inout'):
                continue
            arguments = []
            for p in c.params:
                if p is tested:
                    arguments.append('NULL')
                elif p.ctype.endswith('*') and p.direction in ('out', 'out?', 'inout'):
                    arguments.append('(void *)scratch')
                elif p.ctype.startswith('CUmemLocation') and not p.ctype.endswith('*') or p.ctype in (
                        'CUipcEventHandle', 'CUipcMemHandle'):
                    arguments.append('(%s){ 0 }' % p.ctype)
                else:
                    arguments.append('0')
            out += ['NULL_TEST(%s, %s, %s)' % (symbol, tested.name, ', '.join(arguments)) for symbol in c.symbols()]
    return '\n'.join(out) + '\n'


def emit_names(errors):
    out = [BANNER % 'cuda.errors']
    out += ['{ %d, "%s", "%s" },' % e for e in errors]
    return '\n'.join(out) + '\n'


def emit_coverage(calls):
    exported = sum(1 + len(c.families) for c in calls)
    custom = [c for c in calls if c.custom or c.wrap]
    refused = [c for c in calls if c.refuse]
    out = ['# Coverage of the CUDA driver API', '',
           'Made by `api/gen.py --coverage` from `api/cuda.api`; a test keeps it equal to the table, and another one keeps the',
           'table equal to what the software GPU really serves.', '',
           '%d prototypes, %d exported names: %d served by the implementation behind `struct cuda_ops`, %d answered wholly or '
           'partly by hand in `src/client` (custom), %d refused.' % (len(calls), exported, len(calls) - len(custom) - len(refused),
                                                    len(custom), len(refused)), '']
    sections = []
    for c in calls:
        if c.section not in sections:
            sections.append(c.section)
    for section in sections:
        out += ['## ' + section[:1].upper() + section[1:], '', '| call | found as | class | answer |', '|---|---|---|---|']
        for c in calls:
            if c.section != section:
                continue
            answer = ('custom: src/client' if c.custom else 'served, with a part in src/client' if c.wrap else
                      'refused: %s' % c.refuse if c.refuse else 'served')
            found = ['%s %d' % (c.base, c.abi)] + ['%s %d' % f for f in c.families.items()]
            out.append('| `%s` | %s | %s | %s |' % (c.name, ', '.join(found), c.klass, answer))
        out.append('')
    return '\n'.join(out)


def write(path, text):
    """Leaves a file alone that is already so, so that nothing is compiled again without need."""
    if os.path.exists(path) and open(path, encoding='utf-8').read() == text:
        return
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    with open(path, 'w', encoding='utf-8') as stream:
        stream.write(text)


def main(argv):
    if len(argv) < 2 or argv[1] in ('-h', '--help'):
        print(__doc__)
        return 0 if len(argv) > 1 else 2
    tables = HERE
    if '--tables' in argv:
        at = argv.index('--tables')
        tables = argv[at + 1]
        del argv[at:at + 2]
    try:
        calls = read_calls(os.path.join(tables, 'cuda.api'))
        types = read_types(os.path.join(tables, 'cuda.types'))
        errors = read_errors(os.path.join(tables, 'cuda.errors'))
    except TableError as error:
        print(error, file=sys.stderr)
        return 1
    if argv[1] == '--check':
        return 0
    if argv[1] == '--coverage':
        write(argv[2], emit_coverage(calls))
        return 0
    if argv[1] == '--exports':
        print('\n'.join(sorted(symbol for c in calls for symbol in c.symbols())))
        return 0
    if argv[1] == '--procs':
        for base, per_thread, abi, symbol in proc_rows(calls):
            print(base, 'per-thread' if per_thread else 'plain', abi, symbol)
        return 0
    outdir = argv[1]
    write(os.path.join(outdir, 'farwarp', 'cuda.h'), emit_header(types, errors, calls))
    write(os.path.join(outdir, 'cuda_ops.h'), emit_ops(calls))
    write(os.path.join(outdir, 'cuda_calls.inc'), emit_call_rows(calls, types))
    write(os.path.join(outdir, 'client_exports.inc'), emit_exports(calls))
    write(os.path.join(outdir, 'client_procs.inc'), emit_procs(calls))
    write(os.path.join(outdir, 'client_custom.h'), emit_custom(calls))
    write(os.path.join(outdir, 'cuda_names.inc'), emit_names(errors))
    write(os.path.join(outdir, 'cuda_marks.inc'), emit_marks(calls))
    write(os.path.join(outdir, 'cuda_null_tests.inc'), emit_null_tests(calls))
    write(os.path.join(outdir, 'cuda_invoke.inc'), emit_invoke(calls))
    write(os.path.join(outdir, 'client_remote.inc'), emit_remote(calls))
    write(os.path.join(outdir, 'client_remote_hand.h'), emit_remote_hand(calls))
    write(os.path.join(outdir, 'server_custom.inc'), emit_server(calls))
    write(os.path.join(outdir, 'native_calls.inc'), emit_native(calls))
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv))
