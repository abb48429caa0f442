// A long list: only the rows in view are in the document. Rows come in parts, as one scrolls to them.
export default {
  props: { count: Number, part: Number },
  emits: ["want", "return"],
  template: `
    <div ref="box" class="vehicle-list" role="list" tabindex="0" :aria-label="count + ' vehicles, latest first'"
         @scroll.passive="scrolled" @keydown="pressed" style="overflow-y:auto;position:relative;width:100%">
      <div :style="{height: count * height + 'px', position: 'relative'}">
        <div v-for="i in shown" :key="i" role="listitem" :aria-setsize="count" :aria-posinset="i + 1"
             :aria-busy="!row(i)" class="vehicle-place"
             :style="{position: 'absolute', top: i * height + 'px', height: height - 8 + 'px'}">
          <a :href="row(i) ? row(i).href : undefined" :data-index="i" :tabindex="row(i) ? undefined : 0"
             @focus="active = i" class="vehicle-row">
          <template v-if="row(i)">
            <span class="vehicle-pictures">
              <img v-for="p in row(i).pictures" :key="p.band" :src="p.src" :alt="row(i).name + ', ' + p.band"
                   :title="p.band" loading="lazy">
              <span v-if="!row(i).pictures.length" class="q-icon material-icons" role="img"
                    aria-label="no picture was kept">no_photography</span>
            </span>
            <span class="vehicle-words">
              <b>{{ row(i).name }}</b>
              <span>{{ row(i).when }}</span>
              <span>{{ row(i).cameras }}</span>
              <span class="vehicle-faint">{{ row(i).told }}</span>
            </span>
          </template>
          <template v-else><span class="vehicle-blank picture"></span><span class="vehicle-blank"></span></template>
          </a>
        </div>
      </div>
    </div>`,
  data: () => ({ top: 0, room: 800, height: 104, active: 0, parts: {}, asked: {} }),
  computed: {
    shown() {
      const first = Math.max(0, Math.floor(this.top / this.height) - 4);
      const last = Math.min(this.count, Math.ceil((this.top + this.room) / this.height) + 4);
      return Array.from({ length: Math.max(0, last - first) }, (_, n) => first + n);
    },
  },
  mounted() {
    this.place = "vehicles:" + location.search;
    this.watcher = new ResizeObserver(() => {
      this.room = this.$refs.box.clientHeight;
    });
    this.watcher.observe(this.$refs.box);
    // The row that was on top, by its address, and how far it was scrolled: others may have come before it meanwhile.
    const [top, id] = JSON.parse(sessionStorage.getItem(this.place) || "[0]");
    this.$nextTick(() => {
      this.jump(top);
      this.kept = this.top;
      if (id && top) this.$emit("return", id);
    });
  },
  beforeUnmount() {
    this.watcher.disconnect();
    clearTimeout(this.timer);
  },
  methods: {
    row(i) {
      const rows = this.parts[Math.floor(i / this.part)];
      return rows && rows[i % this.part];
    },
    scrolled() {
      this.top = this.$refs.box.scrollTop;
      // A jump passes over thousands of rows: only where it comes to rest is anything asked for.
      clearTimeout(this.timer);
      this.timer = setTimeout(this.ask, 60);
    },
    ask() {
      this.remember();
      const here = this.shown;
      if (!here.length) return;
      const first = Math.floor(here[0] / this.part), last = Math.floor(here[here.length - 1] / this.part);
      for (let n = first; n <= last; n++)
        if (!this.parts[n] && !(Date.now() - this.asked[n] < 10000)) {
          this.asked[n] = Date.now();
          this.$emit("want", n);
        }
      for (const n of Object.keys(this.parts)) if (Math.abs(n - first) > 20) delete this.parts[n];
    },
    remember() {
      const row = this.row(Math.floor(this.top / this.height));
      sessionStorage.setItem(this.place, JSON.stringify([this.top, row ? row.id : ""]));
    },
    jump(top) {
      this.$refs.box.scrollTop = top;
      this.scrolled();
    },
    show(i) {
      // Not where somebody has scrolled on already.
      if (this.top === this.kept) this.jump(i * this.height + (this.kept % this.height));
    },
    fill(n, rows) {
      delete this.asked[n];
      this.parts[n] = rows;
      this.remember();
    },
    failed(n) {
      // Asked for again soon: what failed passes, as a rule, and nobody should have to scroll for it.
      this.asked[n] = Date.now() - 5000;
      clearTimeout(this.timer);
      this.timer = setTimeout(this.ask, 5100);
    },
    pressed(event) {
      const page = Math.max(1, Math.floor(this.room / this.height) - 1);
      const view = this.$refs.box;
      const inside = document.activeElement !== view && view.contains(document.activeElement);
      // Who has scrolled on by wheel goes on from what is in view.
      const first = Math.ceil(view.scrollTop / this.height);
      const last = Math.floor((view.scrollTop + this.room) / this.height) - 1;
      if (this.active < first - 1 || this.active > last + 1) this.active = first;
      const steps = { ArrowDown: inside ? 1 : 0, ArrowUp: -1, PageDown: page, PageUp: -page };
      let to = this.active;
      if (event.key in steps) to += steps[event.key];
      else if (event.key === "Home") to = 0;
      else if (event.key === "End") to = this.count - 1;
      else return;
      event.preventDefault();
      to = Math.min(this.count - 1, Math.max(0, to));
      const box = this.$refs.box, above = to * this.height, below = above + this.height;
      if (above < box.scrollTop) box.scrollTop = above;
      else if (below > box.scrollTop + this.room) box.scrollTop = below - this.room;
      this.active = to;
      this.top = box.scrollTop;
      this.$nextTick(() => box.querySelector('[data-index="' + to + '"]')?.focus({ preventScroll: true }));
    },
  },
};
