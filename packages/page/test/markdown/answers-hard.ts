/* Further answers: where one construct stands in another, and where what comes late changes what was
read before. */

export const HARD_ANSWERS: Record<string, string> = {
  "tasks among other items":
    "- plain\n- [ ] to do\n- [x] done `now`\n- plain again\n  - [ ] inner\n  - inner plain\n\n1. one\n2. [ ] two\n3. [x] three\n\n- [ ]\n- [link](https://a.test) first\n- [x]no task\n- [y] none\n",
  "loose tasks": "- [ ] first\n\n- second\n\n- [x] third\n\n  with more\n\nEnd.\n",
  "ordered lists with listings":
    "1. Install:\n   ```sh\n   pip install x\n   ```\n   1. inner one\n      ```py\n      print(1)\n\n      print(2)\n      ```\n   2. inner two\n2. Run\n\n   ~~~\n   ``` inside\n   ~~~\n10. Ten\n    - bullet\n      ```\n      deep\n      ```\n",
  "tables after lists":
    "- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n1. x\n| c | d |\n|---|---|\n| 3 | 4 |\n\nText right before\n| e |\n|---|\n| 5 |\nafter it\n",
  "text like HTML":
    "Use <T> or Vec<u8> and a<b>c. A List<Map<K, V>> x; if (a < b && c > d) {}.\n\n<div align=\"center\">\n\n**bold**\n\n</div>\n\n<!-- a comment -->\n\n<br/>\n\n1 <2 and 3> 2, <- arrow -> <3 hearts.\n\n<https://a.test/x> <not a link> <a@b.test>\n",
  "underlined headings": "Title\n=====\n\nText\n\nSub\n---\n\ntwo\nlines\n===\nmore\n\n- item\n---\nend\n-\n",
  "long links":
    `See [a very long text of a link ${"that goes on ".repeat(20)}](https://a.test/${"path/".repeat(60)}end?x=1&y=(2)) and https://b.test/${"long-".repeat(50)}end. Done (https://c.test/x_(y)), "https://d.test/q".\n`,
  "links in links and pictures":
    "[![badge](https://a.test/b.svg)](https://a.test) and [`code` link](https://b.test), [**bold** *it*](https://c.test). ![alt [x]](https://d.test/a.png \"t\") [a](<https://e.test/a b>) [b](https://f.test 'q')\n",
  "footnotes in lists and before their text":
    "[^a]: first said.\n\n- Claim[^a] and[^b c] no.\n- More[^2].\n\n[^2]: Over\n    two lines.\n\n    And no more.\n\nLast[^3]\n[^3]: right below\n",
  "flags and joined emoji":
    "Flags 🇩🇪🇫🇷 and 🏴󠁧󠁢󠁥󠁮󠁧󠁿, family 👨‍👩‍👧‍👦, 👍🏽 and ❤️ 1️⃣.\n\n- 🇯🇵 **日本**\n- ✅ done\n- *️⃣ star\n\n| 🇪🇸 | 🇮🇹 |\n|---|---|\n| 👩🏾‍💻 | #️⃣ |\n",
  "right to left with code":
    "استخدم `npm install` ثم:\n\n```sh\nnpm test\n```\n\n1. الأمر `ls -la` يعرض **كل** الملفات\n2. ثم [الرابط](https://a.test/x)\n\n> اقتباس مع `code` و*ميل*\n\n| الاسم | القيمة |\n|---|---|\n| `a` | ١ |\n\nשלום `world` ו**עוד**.\n",
  "money and formulas":
    "From $1,000 to $2,500 (or $3k), -$4; $5/month. US$6, A$7 and $8.99/kg. But $E=mc^2$, $\\$5$ and $x$-axis; $a$ and $b$, not $ 9 $ nor $10$5. $$c^2$$ inline. Cost: **$11** or `$12`; $13\n$14 next line.\n",
  "formulas in several lines":
    "$$\na = b \\\\\n\\text{if } x > 0\n$$\n\ntext\n\n\\[ x = y \\]\n\n- item $x_1$\n\n  $$\n  y\n  $$\n\n> \\[\n> z\n> \\]\n\n\\begin{align}\na &= b\n\\end{align}\n\n$$open\nfor ever\n",
  "listings by indentation":
    "- item\n\n      indented code\n\n- next\n\n        deeper\n\n  text\n\n1. one\n\n       seven\n\nText\n\n    four spaces\n    # no heading\n\n\ttab\n\nend\n",
  "quotes with lists with listings":
    "> - one\n>   ```js\n>   let a = 1;\n>\n>   let b;\n>   ```\n> - two\n>\n>   > inner\n>   >\n>   > 1. deep\n>   >    ```\n>   >    x\n>   >    ```\n>\n> after\nlazy line\n\n> > two\n> one\n",
  "a listing that never ends": "Look:\n\n```python\nx = 1\n\n\ny = `2`\n# **no**\n- no list\n| no | table |\n",
  "listings that end with their place":
    "> ```js\n> let a;\nAfter the *quote*.\n\n- ```py\n  x = 1\n- [x] the next `item`\n\n1. ~~~\n   y\n\nText with **marks** and [a link](https://a.test).\n\n> - ```\n>   z\n>\n> [ ] after it\n\n>> ```\n> one *less*\n\nend\n",
  "listings by indentation with fences in them":
    "Text:\n\n      ```py\n      x\n      ```\n\n**bold**\n\n- item\n\n          ```\n          deep\n\n- *next*\n\n-     ```\n- [x] after\n\n\t```\n\ttab\n\n_end_\n",
  "fences in fences":
    "`````\n````\n```\nx\n```\n````\n`````\n\n```js // title=\"a.js\"\na`b`\n```  \n\n~~~~md\n~~~\n```\n~~~~\n\n``` not `a` fence\n\n- ```\n  in item\n  ```\n- after\n",
  "rules and emphasis that look alike":
    "***\n**bold** at the start\n* * *\n* item *with* star\n___\n__init__ and _a_b_ and a_b_c\n\n- - nested\n- * nested\n+ plus\n-\n- after empty\n\n**bold**text and**bold** 2**3**4\n",
  "marks of many kinds":
    "~~old~~ ~one~ a~b H~2~O ==mark== ++ins++ x^2^ :smile: @user #123 `~~x~~` **~~both~~** *`code`* ***~~all~~***\n\nA\\*b \\`c\\` \\[d\\] \\_e\\_ \\# \\- \\| \\\\\n",
  "broken lines": "one  \ntwo\\\nthree\nfour<br>five<br/>six\n\n- a  \n  b\n- c\\\n  d\n\n> e  \n> f\n",
  "marks over the end of a line":
    "a **bold\n1st of** it, *soft\n+1 and* on, `code\n2. not` a list\n\n[a link\n12 of it](https://a.test) and **two\n=3** lines.\n\n- x **y\n  1 z** w\n",
  "numbers that begin lines":
    "The year was\n1984. It was cold.\n\n2001. A Space Odyssey\n\n3) three\n4) four\n\n0. zero\n1. one\n\n- 1. mixed\n- 2) mixed\n\n1.no space 2.5 3.\n+1 for that\n-1 for this\n#1 is it\n",
  "tables of many shapes":
    "| a |\n|:-:|\n| `x \\| y` | too many |\n|\n| |\n\n|a | b\n|-|-\n|1 | **2\n|3 | 4**\n\n|no|delimiter|\n|a|b|\n\n| **h** | [l](https://a.test) |\n| :--- | ---: |\n| ![i](https://a.test/i.png) | $x|y$ |\n| a<br>b | ~~c~~ |\n> quote after\n",
  "entities and quotes":
    "&lt;b&gt; &amp;amp; &#x27;q&#39; &copy &unknown; &; AT&T R&D a&b; \"q\" 'q' “q” … -- --- ``` `` ` & `&amp;`\n",
  "crowded markers": "1.\n2. two\n\n-\n\n*\ntext\n\n- a\n\n\n- b\n\n\n\n- c\n   text\n- d\n 1. e\n  2. f\n\n#\n# \n## x\n#y\n",
  "half a tool call": "{\"name\": \"x\", \"arguments\": {\"a\": [1, 2, \"*b*\"], \"c_d_e\": \"$f$\"}}\n\n[1, 2][0] and a[i][j] = b[k](x) \\[y\\]\n\nfunction_call(a_b, *args, **kwargs)\n",
  "tables without bars at their sides":
    "The figures:\n\nName | Age\n--- | ---\nAda | 36\n\n## Plans\nFree plan | $0\n:-- | --:\nPro | $9\n\n**Costs:**\na | b\n-|-\n1 | 2\n\nShort:\n\nNo table here\n\nAs follows:\ntext that goes on for longer than a cell is\n",
  "delimiter rows without a head": "a@b.test\n:--|\n\n$$a$$ b\n:-\n\n- [x] t\n:--|\n\n`a|b`\n:-\n\n<br/>\n:--|\n\na \\| b\n:-\n",
  "breaks before what is held": "x\\\n&\n\nx\\\n$$\n\nx\\\n[a\n\n\\\n&\n\n#\nx\\\n|\n-[\n\nend\n",
  "addresses in words":
    "1https://a.test\n\n\\https://a.test`\n\n/bhttps://a.test\" 見るhttps://a.test/x は\n\nhttps://a.test\".)[\n\n])>https://a.test#:$$\n\n*see https://a.test/a_b* and **www.a.test**, xwww.a.test\n",
  "flanks and the rule of three": "**a*b*\nb**\n\n*_&**<(\n\n~#:~~**(_!\n\n/.*&**:\n\n(-*1/)**$\n\n*1(]>!\"**_\n\n**x**`y` and *z*<b>u</b> _b a_h\n",
  "dollars that pair with none":
    "$$]>$$!$$|[a/\n\n$$=$$$\n\n$$$$^\"**$$+\"\n\n$$$\n$$a$$ b\n\n- $$ open\n\ntext\n\n$$\nz\n$$\n\nx $$\ny\n\n$$\n> q\n\nx $$\na@b.test\n",
  "markers before what is held": "(  1<<\n- $$\n\n+\\\\a\n\n| a | b |\n1.\n- $$\n",
};

/** Whose references find their address when it comes: what was text before is a link then. */
export const LATE_ANSWERS: Record<string, string> = {
  "references that come late":
    "See [the docs][d], [API], [x][] and [Other Thing]. A [task] too, ![pic][p].\n\nText.\n\nMore text.\n\n[d]: https://a.test/docs \"The docs\"\n[API]: <https://b.test/api>\n[x]: https://c.test\n[other thing]: https://d.test\n[p]: https://e.test/p.png\n",
  "references in lists and tables":
    "- one [a]\n- two [b][a]\n\n| x |\n|---|\n| [a] |\n\n> [a] quoted\n\nText between\n\nand more\n\n[a]: https://a.test\n\nend [a]\n",
};
