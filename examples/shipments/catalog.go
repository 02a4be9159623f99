package shipments

// kind is a sort of goods.
type kind struct {
	names     []string
	kg        float64 // of a piece
	tags      []string
	hazardous bool
	cooled    bool
	low       float64 // lowest temperature it bears
}

var catalog = []kind{
	{names: []string{"frozen cod fillets", "gefrorener Kabeljau", "冷凍鱈", "torskefilet, frossen"}, kg: 12.5, tags: []string{"cold", "fish"}, cooled: true, low: -24},
	{names: []string{"vaccines", "Impfstoffe", "ワクチン", "لقاحات"}, kg: 0.35, tags: []string{"pharma", "cold"}, cooled: true, low: 2},
	{names: []string{"insulin pens", "stylos à insuline"}, kg: 0.08, tags: []string{"pharma"}, cooled: true, low: 2},
	{names: []string{"cut roses", "rosas cortadas", "Schnittrosen"}, kg: 4.2, tags: []string{"flowers"}, cooled: true, low: 1},
	{names: []string{"bananas", "plátanos", "กล้วย"}, kg: 18.14, tags: []string{"fruit"}, cooled: true, low: 13},
	{names: []string{"green coffee", "café vert", "cà phê nhân", "ቡና"}, kg: 60, tags: []string{"food"}},
	{names: []string{"cocoa beans", "fèves de cacao"}, kg: 62.5, tags: []string{"food"}},
	{names: []string{"basmati rice", "बासमती चावल"}, kg: 25, tags: []string{"food"}},
	{names: []string{"red wine", "vin rouge", "ღვინო", "κρασί"}, kg: 9, tags: []string{"drinks", "glass"}},
	{names: []string{"amber jewellery", "biżuteria z bursztynu", "янтарь"}, kg: 0.02, tags: []string{"valuable"}},
	{names: []string{"wool cloth", "Wolltuch", "laken", "klæde"}, kg: 31, tags: []string{"textiles"}},
	{names: []string{"cotton shirts", "camisas de algodón", "সুতি শার্ট"}, kg: 0.24, tags: []string{"textiles"}},
	{names: []string{"running shoes", "运动鞋", "운동화"}, kg: 0.9, tags: []string{"textiles"}},
	{names: []string{"semiconductors", "半導體", "Halbleiter"}, kg: 0.004, tags: []string{"electronics", "esd"}},
	{names: []string{"lithium-ion batteries", "Lithium-Ionen-Akkus", "リチウムイオン電池"}, kg: 0.6, tags: []string{"electronics"}, hazardous: true},
	{names: []string{"solar panels", "panneaux solaires"}, kg: 21.5, tags: []string{"energy", "glass"}},
	{names: []string{"wind turbine blade", "vindmøllevinge"}, kg: 18_500, tags: []string{"energy", "oversize"}},
	{names: []string{"machine tools", "Werkzeugmaschinen", "obráběcí stroje"}, kg: 3_400, tags: []string{"machinery"}},
	{names: []string{"spare parts", "запасные части", "varaosat"}, kg: 2.7, tags: []string{"machinery"}},
	{names: []string{"passenger cars", "Personenwagen"}, kg: 1_480, tags: []string{"vehicles"}},
	{names: []string{"timber", "Schnittholz", "sahatavara", "virke"}, kg: 510, tags: []string{"bulk"}},
	{names: []string{"salt", "Lüneburger Salz", "sól"}, kg: 1_000, tags: []string{"bulk"}},
	{names: []string{"steel coils", "bobines d'acier"}, kg: 14_200, tags: []string{"metal"}},
	{names: []string{"copper cathodes", "cátodos de cobre"}, kg: 2_480, tags: []string{"metal", "valuable"}},
	{names: []string{"paints and lacquers", "Farben und Lacke"}, kg: 16.3, tags: []string{"chemicals"}, hazardous: true},
	{names: []string{"fertiliser", "удобрение"}, kg: 50, tags: []string{"chemicals", "bulk"}, hazardous: true},
	{names: []string{"laboratory samples", "échantillons"}, kg: 0.15, tags: []string{"samples"}, cooled: true, low: -78},
	{names: []string{"books", "Bücher", "书籍", "ספרים"}, kg: 0.45, tags: []string{"paper"}},
	{names: []string{"letters and documents", "Dokumente"}, kg: 0.03, tags: []string{"paper", "express"}},
	{names: []string{"a grand piano", "Konzertflügel"}, kg: 490, tags: []string{"valuable", "oversize"}},
}

var places = []struct {
	code  string
	place Place
}{
	{"HAM", Place{"DE", "Hamburg", 53.5436, 9.9666}},
	{"LBC", Place{"DE", "Lübeck", 53.8697, 10.6864}},
	{"BGO", Place{"NO", "Bergen", 60.3971, 5.3244}},
	{"BRU", Place{"BE", "Brugge", 51.3296, 3.2077}},
	{"LON", Place{"GB", "London", 51.4625, 0.3615}},
	{"NVG", Place{"RU", "Великий Новгород", 58.5213, 31.2710}},
	{"GDN", Place{"PL", "Gdańsk", 54.3987, 18.6682}},
	{"RIX", Place{"LV", "Rīga", 57.0466, 24.0520}},
	{"TLL", Place{"EE", "Tallinn", 59.4536, 24.7536}},
	{"VBY", Place{"SE", "Visby", 57.6348, 18.2948}},
	{"RTM", Place{"NL", "Rotterdam", 51.9496, 4.1453}},
	{"LEH", Place{"FR", "Le Havre", 49.4826, 0.1271}},
	{"PIR", Place{"GR", "Πειραιάς", 37.9420, 23.6465}},
	{"IST", Place{"TR", "İstanbul", 41.0082, 28.9784}},
	{"ALY", Place{"EG", "الإسكندرية", 31.2001, 29.9187}},
	{"MBA", Place{"KE", "Mombasa", -4.0435, 39.6682}},
	{"ADD", Place{"ET", "አዲስ አበባ", 8.9806, 38.7578}},
	{"BOM", Place{"IN", "मुंबई", 18.9388, 72.8354}},
	{"CGP", Place{"BD", "চট্টগ্রাম", 22.3569, 91.7832}},
	{"LCH", Place{"TH", "แหลมฉบัง", 13.0827, 100.8833}},
	{"SIN", Place{"SG", "Singapore", 1.2644, 103.8222}},
	{"SGN", Place{"VN", "Thành phố Hồ Chí Minh", 10.7769, 106.7009}},
	{"SHA", Place{"CN", "上海", 31.3660, 121.6147}},
	{"KHH", Place{"TW", "高雄", 22.6163, 120.3133}},
	{"PUS", Place{"KR", "부산", 35.1028, 129.0403}},
	{"YOK", Place{"JP", "横浜", 35.4437, 139.6380}},
	{"SYD", Place{"AU", "Sydney", -33.9709, 151.2218}},
	{"AKL", Place{"NZ", "Tāmaki Makaurau", -36.8406, 174.7762}},
	{"LAX", Place{"US", "Los Angeles", 33.7361, -118.2642}},
	{"NYC", Place{"US", "New York", 40.6840, -74.0419}},
	{"YVR", Place{"CA", "Vancouver", 49.2890, -123.1110}},
	{"SSZ", Place{"BR", "São Paulo–Santos", -23.9608, -46.3336}},
	{"CLL", Place{"PE", "Callao", -12.0500, -77.1500}},
	{"REK", Place{"IS", "Reykjavík", 64.1466, -21.9426}},
}

var partners = []string{
	"Veckinchusen & Söhne", "Compagnie du Nord", "A/S Bryggen", "丸一商事株式会社", "Østersjø Logistik", "Żegluga Gdańska sp. z o.o.",
	"شركة البحر الأحمر", "Trần Gia Logistics", "हिन्द माल ढुलाई", "O'Neill & Sons", "Müller-Lüdenscheidt GmbH", "Ångström Frakt AB",
	"Importações Irmãos Conceição", "부산해운", "Ναυτιλιακή Α.Ε.", "\"Quick\" Forwarding, Inc.", "X", "Société générale de transport et d'entreposage de la Manche",
}

var packings = []string{"EUR pallet", "carton", "40' HC container", "20' container", "drum 200 l", "Kiste", "big bag", "crate", "reel", "Fass", "box №5", "IBC 1000 l", "loose"}

var (
	handling   = []string{"fragile", "this-way-up", "keep-dry", "no-stacking", "insured", "priority", "inspect", "return-empties", "adr"}
	carriers   = []string{"MSKU", "HLXU", "CMAU", "ONEU", "EGHU", "HASU"}
	regions    = []string{"DE", "NO", "BE", "GB", "PL", "NL", "FR"}
	incoterms  = []string{"EXW", "FCA", "FOB Hamburg", "CIF 上海", "DAP", "DDP", "CPT"}
	volumes    = []string{"m3", "cbm", "ft3", "l"}
	currencies = []string{"EUR", "USD", "GBP", "NOK", "PLN", "JPY", "CNY", "INR", "BRL", "SGD", "CHF"}
	remarks    = []string{"–", "ring twice", "nur vormittags 🚚", "至急", "Lieferung an Rampe 3; Ausweis nötig", "отдать под роспись", "\ttwo\nlines"}

	referenceNames = []string{
		"container", "customs", "incoterm", "volume", "freight", "order", "consignee", "insurance", "letter", "remark 備考", "temp. log", "UN number", "seal-no. №",
	}
)
